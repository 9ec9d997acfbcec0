"""No secret is shown, whatever the services do (P12)."""

from __future__ import annotations

from urllib.parse import quote

import attrs
import pytest
from eight import Services

from telegram_hybrid import Settings
from telegram_hybrid.health import Health, State, check

# One worker of xdist: its servers serve every test here.
pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("health")]


SECRET = "hüsh@/%:#p?w d"
ENCODED = quote(SECRET, safe="")


def spoken(settings: Settings, found: Health) -> str:
    """Everything that a person or a program may get to see."""
    each = " ".join(map(str, found.services))
    return f"{found!r} {found} {each} {attrs.asdict(found)} {settings!r}"


def test_no_secret_is_shown_while_all_is_well_and_while_nothing_is(services: Services) -> None:
    secrets = services.secrets()
    assert len(secrets) > 4
    outputs = [services.command().stdout, services.command("--json").stdout]
    outputs.append(spoken(services.settings, check(services.settings)))
    services.kill(*services.daemons)
    for options in ((), ("--json",), ("--debug",)):
        done = services.command(*options)
        outputs += [done.stdout, done.stderr]
    outputs.append(spoken(services.settings, check(services.settings)))
    for secret in secrets:
        assert not [each for each in outputs if secret in each]


@pytest.mark.parametrize("alive", [True, False])
def test_no_wrong_password_is_shown_by_servers_that_refuse_it(
    services: Services, alive: bool
) -> None:
    """Seen to fail with the bare URL in the reason of each service."""
    wrong = {name: SECRET for name in services.stack.env if name.endswith("_PASSWORD")}
    assert len(wrong) == 4
    env = {**services.stack.env, **wrong}
    if not alive:
        env |= {name: "1" for name in env if name.endswith("_PORT")}
        env["TELEGRAM_REDIS_SENTINELS"] = "127.0.0.1:1"
    settings = Settings.from_env(env)
    found = check(settings)
    assert found.state is State.DOWN
    assert all(each.why for each in found.services), found
    text = spoken(settings, found)
    for options in ((), ("--json",), ("--strict", "--debug")):
        done = services.command(*options, env=env)
        assert done.returncode == 2
        text += done.stdout + done.stderr
    for part in (SECRET, ENCODED, "hüsh", "%3Ap", quote("hüsh")):
        assert part not in text

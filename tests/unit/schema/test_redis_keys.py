"""Key names: built and parsed in one place, one slot per channel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from telegram_hybrid.errors import ConfigurationError
from telegram_hybrid.schema.redis.keys import Guard, KeyName, Keys, Kind

CHANNELS = st.integers(-(2**52) + 1, 2**52 - 1).filter(bool)
MESSAGES = st.integers(0, 2**52 - 1)
GUARDS = st.sampled_from([None, *Guard])
NUMBERED = (Kind.MESSAGE, Kind.SEEN, Kind.PAGE)
SINGLE = tuple(kind for kind in Kind if kind not in NUMBERED)
NAMES = st.one_of(
    st.builds(KeyName, st.sampled_from(NUMBERED), CHANNELS, MESSAGES, GUARDS),
    st.builds(KeyName, st.sampled_from(SINGLE), CHANNELS, st.none(), GUARDS),
)
PREFIXES = st.from_regex(r"[A-Za-z0-9_.:-]{1,20}", fullmatch=True).map(Keys)


def test_names_are_the_contracts() -> None:
    keys = Keys()
    assert keys.message(-1001, 42) == "telegram:msg:{-1001}:42"
    assert keys.seen(-1001, 42) == "telegram:dedup:{-1001}:42"
    assert keys.window(-1001) == "telegram:channel:{-1001}:recent"
    assert keys.lease(keys.message(-1001, 42)) == "telegram:msg:{-1001}:42:lease"
    assert keys.held(keys.window(-1001)) == "telegram:channel:{-1001}:recent:held"
    assert keys.page(-1001, 3) == "telegram:channel:{-1001}:page:3"
    assert keys.tombstone(-1001) == "telegram:channel:{-1001}:tombstone"
    assert keys.generation(-1001) == "telegram:channel:{-1001}:generation"
    assert keys.api("activity", "c0ffee") == "telegram:api:activity:c0ffee"
    assert (keys.wake, keys.filled) == ("telegram:wake", "telegram:filled")


@given(keys=PREFIXES, name=NAMES)
def test_parse_is_the_inverse_of_build(keys: Keys, name: KeyName) -> None:
    assert keys.parse(keys.build(name)) == name
    assert keys.parse(keys.build(name).encode()) == name


@given(keys=PREFIXES, channel_id=CHANNELS, message_ids=st.lists(MESSAGES, min_size=1))
def test_all_keys_of_a_channel_share_one_cluster_slot(
    keys: Keys, channel_id: int, message_ids: list[int]
) -> None:
    # Seen to fail without the braces around the channel id.
    values = [keys.window(channel_id), keys.tombstone(channel_id), keys.generation(channel_id)]
    for number in message_ids:
        values += [build(channel_id, number) for build in (keys.message, keys.seen, keys.page)]
    names = [name for key in values for name in (key, keys.lease(key), keys.held(key))]
    assert {key_slot(name.encode()) for name in names} == {key_slot(str(channel_id).encode())}


@pytest.mark.parametrize(
    "key",
    [
        "",
        "telegram",
        "telegram:wake",
        "telegram:msg:-1001:42",
        "telegram:msg:{-1001}:042",
        "telegram:msg:{-0}:42",
        "telegram:msg:{-1001}:-1",
        "telegram:msg:{-1001}:42:lock",
        "telegram:msg:{-1001}:42\n",
        "telegram:channel:{-1001}:42",
        "elsewhere:msg:{-1001}:42",
        b"telegram:msg:{-1001}:\xff",
        "telegram:msg:{-1001}:٤٢",
    ],
)
def test_a_key_that_is_none_of_ours_is_not_parsed(key: str | bytes) -> None:
    assert Keys().parse(key) is None


@pytest.mark.parametrize("prefix", ["", "a{b", "a}b", "a b", "é", "x" * 65])
def test_a_prefix_that_would_move_or_hide_the_hash_tag_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="redis_prefix"):
        Keys(prefix)

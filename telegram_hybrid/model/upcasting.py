"""Upcasting: payloads of older versions brought to the one that this process reads.

Whoever changes the shape of a topic's payload registers how one of the version before becomes one
of the next. Readers get the current version only, whatever still waits in queues and dead letters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from telegram_hybrid.errors import InvalidInput, UnknownVersion
from telegram_hybrid.model import checks

Payload = dict[str, Any]
Step = Callable[[Payload], Payload]
_S = TypeVar("_S", bound=Step)

#: The schema that all events of messages share; no topic of your own has this name.
MESSAGE = "message"
MAX_VERSION = 2**31 - 1


class Upcasters:
    """The steps from one version of a payload to the next, by schema."""

    def __init__(self) -> None:
        self._steps: dict[str, dict[int, Step]] = {}

    def add(self, schema: str, version: int, step: Step) -> None:
        """Register the step from `version` to the next. Raises `InvalidInput` for a second one."""
        steps = self._steps.setdefault(schema, {})
        if steps.setdefault(version, step) is not step:
            raise InvalidInput("version", f"{schema}: version {version} has an upcaster already")

    def current(self, schema: str) -> int:
        """The version that this process reads: one above the last step's; 1 without any."""
        return max(self._steps.get(schema, ()), default=0) + 1

    def bring(self, schema: str, version: int, payload: Payload) -> Payload:
        """Return what a payload of `version` is in the current one.

        Raises `UnknownVersion` for a version of the future, a gap between the steps, and a step
        that fails.
        """
        current = self.current(schema)
        if version > current:
            raise UnknownVersion(
                schema, version, f"this process reads versions up to {current}; upgrade it"
            )
        for each in range(version, current):
            step = self._steps[schema].get(each)
            if step is None:
                raise UnknownVersion(schema, version, f"no upcaster from version {each} is known")
            try:
                payload = step(payload)
            except Exception as error:
                problem = f"the upcaster from version {each} raised {type(error).__name__}"
                raise UnknownVersion(schema, version, problem) from error
            if not isinstance(payload, dict):
                problem = f"the upcaster from version {each} returned {type(payload).__name__}"
                raise UnknownVersion(schema, version, f"{problem}, not a dict")
        return payload


#: Those of this process.
UPCASTERS = Upcasters()


def upcaster(topic: str, version: int) -> Callable[[_S], _S]:
    """Register how a payload of `version` becomes one of the next version.

        @th.upcaster("orders.opened", 1)
        def with_currency(payload):
            return payload | {"currency": "USD"}

    From then on the topic's version is 2 in this process: `Event` is made with it, and handlers
    get no other. Import the module with the upcasters wherever the topic is published or consumed.
    The function gets a dict of its own and depends on nothing else. Raises `InvalidInput`.
    """
    checks.topic("topic", topic)
    checks.count("version", version, least=1, most=MAX_VERSION - 1)

    def register(step: _S) -> _S:
        UPCASTERS.add(topic, version, step)
        return step

    return register

"""Redis models with one guard of the scripts broken each: the explorer must find them out."""

from typing import Any

import attrs

from cachelab.history import CHANNEL, KEYS
from cachelab.redis_model import RedisModel
from telegram_hybrid.schema.redis import scripts
from telegram_hybrid.schema.redis.scripts import Call

WINDOW = KEYS.window(CHANNEL)


class _Keeping(RedisModel):
    """`script` leaves the keys that end in `suffix`."""

    script = scripts.MARK
    suffix = ":lease"

    def run(self, call: Call) -> Any:
        before = dict(self.data)
        reply = super().run(call)
        if call.script is self.script:
            for key in call.keys:
                if key in before and key.endswith(self.suffix):
                    self.data.setdefault(key, before[key])
        return reply


class MarkLeavesLeases(_Keeping):
    pass


class InvalidateLeavesLeases(_Keeping):
    script = scripts.INVALIDATE


class MarkLeavesValues(_Keeping):
    suffix = "7"


class InvalidateLeavesValues(_Keeping):
    script = scripts.INVALIDATE
    suffix = "7"


class MarkLeavesTheWindow(_Keeping):
    suffix = ":recent"


class FillTakesAnyLease(RedisModel):
    """Somebody's lease is enough."""

    def run(self, call: Call) -> Any:
        if call.script is scripts.FILL and (held := self.get(call.keys[1])):
            call = attrs.evolve(call, args=(held.decode().removesuffix("+"), *call.args[1:]))
        return super().run(call)


class FillNeedsNoLease(RedisModel):
    def run(self, call: Call) -> Any:
        if call.script is scripts.FILL:
            self.put(call.keys[1], str(call.args[0]).encode(), 10)
        return super().run(call)


class FillIgnoresTheTombstone(RedisModel):
    def run(self, call: Call) -> Any:
        if call.script is scripts.FILL:
            call = attrs.evolve(call, args=(call.args[0], 2**62, *call.args[2:]))
        return super().run(call)


class InvalidateLeavesNoTombstone(RedisModel):
    def run(self, call: Call) -> Any:
        reply = super().run(call)
        if call.script is scripts.INVALIDATE:
            self.delete(KEYS.tombstone(CHANNEL))
        return reply


class MarkPutsAsideAnyWindow(RedisModel):
    """A window is put aside, and stays there, whether or not this write can patch it."""

    def run(self, call: Call) -> Any:
        if call.script is scripts.MARK and call.args[1] != "":
            known = self._version(WINDOW) or self._version(KEYS.held(WINDOW))
            if known is not None:
                call = attrs.evolve(call, args=(call.args[0], known))
        return super().run(call)


class PatchFitsAnyWindow(RedisModel):
    """A window is patched whatever its version before."""

    def run(self, call: Call) -> Any:
        if call.script is scripts.INVALIDATE and call.args[3] != "":
            known = self._version(WINDOW) or self._version(KEYS.held(WINDOW))
            if known is not None:
                call = attrs.evolve(call, args=(*call.args[:3], known, *call.args[4:]))
        return super().run(call)


class PatchRepeatsItself(RedisModel):
    """A window that is new enough is patched, too."""

    def run(self, call: Call) -> Any:
        if call.script is scripts.INVALIDATE and call.args[3] != "":
            for key in (WINDOW, KEYS.held(WINDOW)):
                known = self._version(key)
                if known is not None and known >= int(call.args[1]):
                    value, expires = self.data[key]
                    label = b'{"version":%d' % int(call.args[3])
                    assert isinstance(value, bytes)
                    self.data[key] = (value.replace(b'{"version":%d' % known, label, 1), expires)
        return super().run(call)

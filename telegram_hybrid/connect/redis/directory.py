"""The directory: who is the master now, asked once for all threads and watched while in use."""

from __future__ import annotations

import logging
import os
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Event, RLock, Thread, current_thread
from time import monotonic
from typing import Any

import attrs

from telegram_hybrid.connect.redis.discovery import (
    Address,
    AskSentinels,
    Found,
    History,
    Memory,
    Missing,
    Outcome,
    Role,
    as_of,
    complaints,
    discover,
    lost_seconds,
)
from telegram_hybrid.connect.redis.failures import Misconfigured, NotConnected
from telegram_hybrid.connect.redis.questions import Questions
from telegram_hybrid.connect.redis.url import Target

#: Seconds for which a master is believed without asking again; shorter than any failover takes.
FRESH = 1.0
#: Seconds between two discoveries while all is well, and while no master is known.
WATCH = 0.25
HURRY = 0.03
#: Seconds for which an older configuration than the newest seen is not believed.
_GRUDGE = 10.0

_log = logging.getLogger("telegram_hybrid.redis")

#: All there are, for a forked child: the locks and connections it inherits are its parent's.
_directories: weakref.WeakSet[Directory] = weakref.WeakSet()


def _after_fork() -> None:
    for directory in list(_directories):
        directory._begin()


os.register_at_fork(after_in_child=_after_fork)


@attrs.frozen(slots=True)
class View:
    """What is known. `epoch` grows with every change of the master.

    `via` is "sentinel", "direct" (then `degraded` says why), or "none" (then `problem` does).
    """

    epoch: int = 0
    master: Address | None = None
    via: str = "none"
    degraded: str = ""
    problem: str = "not asked yet"


class Directory:
    """Thread-safe. Asks on first use; from then on a thread keeps asking, until `close`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._observers: list[Callable[[int, Address], object]] = []
        self._epoch = 0
        self._wants_replicas = False
        self._master: Address | None = None
        self._history = History()
        #: Of how many seconds the present master may lack what the one before it acknowledged.
        self.lost = 0.0
        self._memory = Memory()
        self._floor_seen_at = float("-inf")
        self._begin()
        _directories.add(self)

    def _begin(self) -> None:
        """Have locks, connections and a thread of our own: at first, and in a forked child."""
        self._questions = Questions(self._target)
        self._turn = RLock()
        self._changed = Condition()
        self._state: Outcome | None = None
        self._asked_at = self._doubted_at = float("-inf")
        self._complaints: dict[Address, str] = {}
        self._samples: deque[tuple[float, int]] = deque(maxlen=64)
        self._replicas: dict[Address, float] = {}
        self._round = _Round()
        self._watcher: Thread | None = None

    def master(self) -> tuple[Address, int]:
        """The master's address and the epoch; asks if what is known is old or was doubted.

        Raises `NotConnected`, at once while the watching thread is looking for a master, and
        `Misconfigured`.
        """
        state = self._state
        if not self._usable(state):
            state = self._discover(only_if_needed=True)
            self._watch()
            if isinstance(state, Missing):
                self._round.hurry()
        if isinstance(state, Found):
            return state.address, self._epoch
        reason = state.reason if state is not None else "closed"
        if state is not None and state.permanent:
            raise Misconfigured(f"Redis: {reason}")
        raise NotConnected(f"Redis: {reason}")

    def replicas(self, max_lag: float) -> list[Address]:
        """Replicas that had, `max_lag` seconds ago at most, all the master's acknowledged writes.

        The mute, the refusing and the lagging are not among them.
        """
        self._wants_replicas = True
        now = monotonic()
        known = self._replicas
        return [each for each, fresh_at in known.items() if now - fresh_at <= max_lag]

    def doubt(self, address: Address) -> None:
        """A connection to `address` failed: ask again before anybody uses it."""
        state = self._state
        if isinstance(state, Found) and state.address == address:
            self._doubted_at = monotonic()
        self._replicas = {
            each: fresh_at for each, fresh_at in self._replicas.items() if each != address
        }

    def observe(self, observer: Callable[[int, Address], object]) -> None:
        """Have `observer(epoch, address)` called once for each change of the master.

        It is called in any thread, before anybody is led to the new master: keep it short. What
        it raises is logged. What Redis acknowledged shortly before the change may be lost there.
        """
        self._observers.append(observer)

    def wait(self, seconds: float) -> None:
        """Sleep, at most until the next discovery that finds a master."""
        with self._changed:
            self._changed.wait(seconds)

    def view(self) -> View:
        """What is known now, without asking."""
        state = self._state
        if isinstance(state, Found):
            via = "direct" if state.degraded else "sentinel"
            return View(self._epoch, state.address, via, state.degraded, "")
        problem = state.reason if state is not None else "not asked yet"
        return View(self._epoch, problem=problem)

    def close(self) -> None:
        """Stop watching and close all connections; the next use starts again."""
        self._round.stop()
        watcher = self._watcher
        if watcher is not None and watcher is not current_thread() and watcher.is_alive():
            watcher.join(1.0)
        with self._turn:
            self._state = None
            self._questions.close()

    def _usable(self, state: Outcome | None) -> bool:
        if isinstance(state, Found):
            return self._asked_at > max(self._doubted_at, monotonic() - FRESH)
        watched = self._watcher is not None and self._watcher.is_alive()
        return state is not None and watched and monotonic() - self._asked_at < 2 * FRESH

    def _discover(self, *, only_if_needed: bool) -> Outcome:
        with self._turn:
            state = self._state
            # Whoever had the turn before may have asked for us as well.
            if only_if_needed and state is not None and self._usable(state):
                return state
            asked_at = monotonic()
            if asked_at - self._floor_seen_at > _GRUDGE:
                self._memory = Memory(self._memory.known)
            outcome = self._perform()
            self._remember(outcome, asked_at)
            if isinstance(outcome, Found):
                if outcome.address != self._master:
                    self._asked_at = float("-inf")  # so that all wait here until it is told
                    self._move(outcome.address)
                elif not self._history.id:
                    self._history = self._questions.history(outcome.address)
                self._samples.append((asked_at, outcome.role.offset))
            self._state, self._asked_at = outcome, asked_at
            if self._wants_replicas and isinstance(outcome, Found):
                self._look_at_replicas(outcome)
        if isinstance(outcome, Found):
            with self._changed:
                self._changed.notify_all()
        return outcome

    def _perform(self) -> Outcome:
        discovery = discover(self._target.master_name, self._target.direct, self._memory)
        reply: Any = None
        while True:
            try:
                request = discovery.send(reply)
            except StopIteration as done:
                outcome: Outcome = done.value
                return outcome
            if isinstance(request, AskSentinels):
                reply = self._questions.sentinels()
                self._complain(complaints(reply))
            else:
                reply = self._questions.role(request.address)

    def _remember(self, outcome: Outcome, asked_at: float) -> None:
        if isinstance(outcome, Missing):
            if not isinstance(self._state, Missing) and self._state is not None:
                _log.warning("no Redis master: %s", outcome.reason)
            return
        self._memory = self._memory.after(outcome)
        if not outcome.degraded:
            self._floor_seen_at = asked_at
        elif not (isinstance(self._state, Found) and self._state.degraded):
            _log.warning("Redis at %s, without Sentinel: %s", outcome.address, outcome.degraded)

    def _move(self, master: Address) -> None:
        """Tell of a change, and take it for done then: who is interrupted has it told again."""
        history = self._questions.history(master)
        self._epoch += 1
        self.lost = lost_seconds(self._samples, self._history, history)
        _log.info("Redis master is %s (epoch %d)", master, self._epoch)
        self._tell(master)
        self._history = history
        self._samples.clear()
        self._replicas = {}
        self._master = master

    def _tell(self, master: Address) -> None:
        for observer in list(self._observers):
            try:
                observer(self._epoch, master)
            except Exception:  # noqa: BLE001  (its own business, not the caller's)
                _log.exception("an observer of the Redis master failed")

    def _look_at_replicas(self, found: Found) -> None:
        roles = self._questions.roles(found.role.replicas)
        fresh: dict[Address, float] = {}
        for address, role in roles.items():
            if isinstance(role, Role) and not role.is_master and role.connected:
                since = as_of(self._samples, role.offset)
                if since is not None:
                    fresh[address] = since
        self._replicas = fresh

    def _complain(self, found: dict[Address, str]) -> None:
        for address, text in found.items():
            if self._complaints.get(address) != text:
                _log.warning("sentinel %s", text)
        self._complaints = found

    def _watch(self) -> None:
        """Start the watching thread, unless it runs (after a fork it does not)."""
        with self._changed:
            if self._watcher is not None and self._watcher.is_alive():
                return
            self._round = _Round()
            self._watcher = Thread(
                target=_keep_asking,
                args=(weakref.ref(self), self._round),
                name="telegram_hybrid redis directory",
                daemon=True,
            )
            # Where there are no more threads, whoever calls asks.
            with suppress(RuntimeError):
                self._watcher.start()


class _Round:
    """The pace of one watching thread."""

    def __init__(self) -> None:
        self.stopped = False
        self._wake = Event()

    def stop(self) -> None:
        self.stopped = True
        self._wake.set()

    def hurry(self) -> None:
        self._wake.set()

    def pause(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()


def _keep_asking(reference: weakref.ref[Directory], round_: _Round) -> None:
    """Discover again and again, for as long as anybody holds the directory."""
    outcome: Outcome | None = None
    while not round_.stopped:
        hurried = isinstance(outcome, Missing) and not outcome.permanent
        round_.pause(HURRY if hurried else WATCH)
        directory = reference()
        if directory is None or round_.stopped:
            return
        outcome = directory._discover(only_if_needed=False)
        del directory

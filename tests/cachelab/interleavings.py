"""An explorer of interleavings: runs the real protocol generators in every order of their steps.

Each request is one atomic step, as it is for one channel's keys on a real Redis; a guarded load is
three: the version that its look at the channel sees, whether it finds the lock free, and the rows.

What makes it exhaustive in seconds: a generator is a function of its replies, so a process is a
node in the tree of its replies and nothing is replayed; what processes share is one value, of
which each step is worked out once; processes of one kind are interchangeable, so a state is the
shared value and the sorted nodes. A lease is not named by its token but by a mark on who holds it.
Steps that touch nothing shared (waiting, an own choice, a load that nobody keeps) take no turn.

Safety is checked of every shared value that is reached, so of every state. Of answers it follows:
they are what the reader's own last `Get` or `Load` said, which is asserted of every answer, and
that was asked after the reader began.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from cachelab.history import CAPACITY, KEYS, LIVES, Log, head, load, written
from cachelab.redis_model import RedisModel
from cachelab.steps import (
    CatchUp,
    Choose,
    Commit,
    Failover,
    Lock,
    Look,
    Outbox,
    Plain,
    Replay,
    Replicate,
    Rows,
    Shared,
    Steps,
    Unlock,
)
from telegram_hybrid.cache import writes
from telegram_hybrid.cache.protocol import Answer
from telegram_hybrid.cache.requests import (
    Await,
    Fill,
    Get,
    Grant,
    Invalidate,
    Lease,
    Load,
    Loaded,
    Mark,
)
from telegram_hybrid.model import ChannelWrite
from telegram_hybrid.schema.redis import scripts


@attrs.define
class _Node:
    """A process after certain replies: what it asks next. `extra` are its steps within a load."""

    role: Callable[[], Steps]
    replies: tuple[Any, ...]
    request: Any


@attrs.define
class Census:
    """What was explored. `unsafe` are states in which a hit is wrong, `stale` such last states."""

    states: int = 0
    terminal: int = 0
    unsafe: int = 0
    stale: int = 0
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.states} states, {self.unsafe} unsafe; "
            f"{self.terminal} terminal, {self.stale} stale"
        )


# What a step does to the lease: nothing, it is granted to who made the step, it is gone, the
# replica has it, too, or the replica's is what there is.
_KEEP, _MINE, _GONE, _REPLICATED, _RESTORED = range(5)
_DONE = 0
State = tuple[int, tuple[int, ...]]


class Explorer:
    """Explores one scenario: processes of given roles, which begin with `shared`.

    `key` is the value that they read; `is_safe` judges what a hit would serve, `has_converged`
    what it would serve in the end.
    """

    def __init__(
        self,
        roles: Sequence[Callable[[], Steps]],
        shared: Shared,
        key: str,
        *,
        is_safe: Callable[[Shared], bool],
        has_converged: Callable[[Shared], bool],
        redis: Callable[[], RedisModel] = RedisModel,
        keeps_acknowledged: bool = False,
        looks_away: bool = False,
    ) -> None:
        self._roles = roles
        self._lease = KEYS.lease(key)
        self._is_safe = is_safe
        self._has_converged = has_converged
        self._redis = redis
        self._keeps_acknowledged = keeps_acknowledged
        self._looks_away = looks_away
        self._shared: list[Shared] = []
        self._safe: list[bool] = []
        self._numbers: dict[Shared, int] = {}
        self._nodes: list[_Node] = [_Node(lambda: iter(()), (), None)]  # type: ignore[arg-type,return-value]
        self._node_numbers: dict[tuple[Any, str], int] = {}
        self._moves: dict[int, tuple[tuple[int, int, int], ...]] = {}
        self._start = self._number(shared)

    def explore(self, *, stop_at_first: bool = False) -> Census:  # noqa: C901
        """Walk every interleaving, or as many as it takes to find an unsafe or stale state."""
        census = Census()
        starts: list[tuple[int, ...]] = [()]
        for role in self._roles:
            begun = self._settled(self._shared[self._start], self._node(role, ()))
            starts = [(*codes, node << 2) for codes in starts for node in begun]
        parents: dict[State, State | None] = {
            (self._start, tuple(sorted(codes))): None for codes in starts
        }
        pending = deque(parents)
        moves_of, safe = self._moves, self._safe
        while pending:
            state = pending.popleft()
            sid, codes = state
            stuck, before = True, 0
            for at, code in enumerate(codes):
                if code == before:  # done, or like the one before
                    continue
                before = code
                moves = moves_of.get(sid << 32 | code >> 1)
                if moves is None:
                    moves = moves_of[sid << 32 | code >> 1] = self._steps(sid, code)
                for after, node, effect in moves:
                    stuck = False
                    others = list(codes)
                    mine = code & 3
                    if effect == _MINE:
                        mine |= 2
                    elif effect == _GONE:
                        others = [other & ~2 for other in codes]
                        mine &= 1
                    elif effect == _REPLICATED:
                        others = [other & ~1 | (other >> 1 & 1) for other in codes]
                    elif effect == _RESTORED:
                        others = [other & ~2 | (other & 1) << 1 for other in codes]
                    others[at] = node << 2 | mine if node else _DONE
                    others.sort()
                    reached = (after, tuple(others))
                    if reached not in parents:
                        parents[reached] = state
                        pending.append(reached)
                        if not safe[after]:
                            census.unsafe += 1
                            census.trace = census.trace or self._trace(reached, parents)
                            if stop_at_first:
                                census.states = len(parents)
                                return census
            if stuck:
                census.terminal += 1
                if not self._has_converged(self._shared[sid]):
                    census.stale += 1
                    census.trace = census.trace or self._trace(state, parents)
                    if stop_at_first:
                        break
        census.states = len(parents)
        return census

    def reached(self) -> list[Shared]:
        """What the processes shared at some moment of what was explored."""
        return list(self._shared)

    def _number(self, shared: Shared) -> int:
        number = self._numbers.get(shared)
        if number is None:
            number = self._numbers[shared] = len(self._shared)
            self._shared.append(shared)
            self._safe.append(self._is_safe(shared))
        return number

    def _node(self, role: Callable[[], Steps], replies: tuple[Any, ...]) -> int:
        """The node of a process after these replies."""
        name = (role, repr(replies))
        number = self._node_numbers.get(name)
        if number is None:
            steps = role()
            try:
                request = next(steps)
                for reply in replies:
                    request = steps.send(reply)
            except StopIteration as done:
                _check_answer(done.value, replies)
                number = _DONE
            else:
                # Whatever led to it, a fill is the last step.
                same = (role, repr(request)) if isinstance(request, Fill) else name
                number = self._node_numbers.get(same, len(self._nodes))
                if number == len(self._nodes):
                    self._nodes.append(_Node(role, replies, request))
                    self._node_numbers[same] = number
            self._node_numbers[name] = number
        return number

    def _within(self, node: _Node, request: Any) -> int:
        """The node of the same process within a load."""
        name = (node.role, repr((node.replies, request)))
        number = self._node_numbers.get(name)
        if number is None:
            number = self._node_numbers[name] = len(self._nodes)
            self._nodes.append(_Node(node.role, node.replies, request))
        return number

    def _after(self, shared: Shared, node: _Node, reply: Any) -> list[int]:
        return self._settled(shared, self._node(node.role, (*node.replies, reply)))

    def _settled(self, shared: Shared, number: int) -> list[int]:
        """The nodes that are reached from one without a step that others would notice."""
        node = self._nodes[number]
        match node.request:
            case Await():
                return self._after(shared, node, None)
            case Load(guarded=False) as unguarded:
                return self._after(shared, node, Loaded(load(shared.log, unguarded)))
            case Choose(options):
                found = [one for option in options for one in self._after(shared, node, option)]
                return list(dict.fromkeys(found))
        return [number]

    def _steps(self, sid: int, code: int) -> tuple[tuple[int, int, int], ...]:
        """What can become of one process's turn: (shared, node, effect on the lease)."""
        shared, node = self._shared[sid], self._nodes[code >> 2]
        match node.request:
            case Lock() if shared.locked:
                return ()
            case Outbox(index) if len(shared.log) <= index:
                return ()
            case Load() as asked:
                seen = self._visible(shared)
                return ((sid, self._within(node, Look(asked, head(seen))), _KEEP),)
            case Look(asked, as_of):
                if self._is_quiet(shared):
                    return ((sid, self._within(node, Rows(asked, as_of)), _KEEP),)
                loaded = Loaded(load(self._visible(shared), asked, as_of), as_of, quiet=False)
                return tuple((sid, one, _KEEP) for one in self._after(shared, node, loaded))
        after, reply, effect = self._perform(shared, node.request, mine=bool(code & 2))
        number = self._number(after)
        return tuple((number, one, effect) for one in self._after(after, node, reply))

    def _is_quiet(self, shared: Shared) -> bool:
        return self._looks_away or shared.standby is not None or not shared.locked

    def _visible(self, shared: Shared) -> Log:
        return shared.log if shared.standby is None else shared.log[: shared.standby]

    def _perform(self, shared: Shared, request: Any, *, mine: bool) -> tuple[Shared, Any, int]:  # noqa: C901
        match request:
            case Lock():
                return attrs.evolve(shared, locked=True), shared.log, _KEEP
            case Commit(message_id, kind):
                log = (*shared.log, (head(shared.log) + 1, message_id, kind))
                return attrs.evolve(shared, log=log, locked=False), None, _KEEP
            case Unlock():
                return attrs.evolve(shared, locked=False), None, _KEEP
            case Outbox(index):
                return shared, written(shared.log, index, patches=False), _KEEP
            case Rows(asked, as_of):
                loaded = Loaded(load(self._visible(shared), asked, as_of), as_of, quiet=True)
                return shared, loaded, _KEEP
            case CatchUp():
                seen = min(len(shared.log), (shared.standby or 0) + 1)
                return attrs.evolve(shared, standby=seen), None, _KEEP
            case Replicate():
                return attrs.evolve(shared, replica=shared.redis), None, _REPLICATED
            case Failover():
                after = attrs.evolve(shared, redis=shared.replica, replica=(), trusted=False)
                return after, None, _RESTORED
            case Get() | Lease() | Fill() if not shared.trusted:
                return shared, None, _KEEP
        redis = self._redis()
        redis.data = dict(shared.redis)
        held = self._lease in redis.data
        applied, acknowledged, trusted = shared.applied, shared.acknowledged, shared.trusted
        effect, reply = _KEEP, None
        match request:
            case Get(keys):
                return shared, [redis.get(key) for key in keys], _KEEP
            case Plain(do):
                reply = do(redis)
            case Lease([e]):
                call = scripts.lease(
                    KEYS,
                    e.key,
                    "T",
                    e.seconds,
                    undecodable=e.undecodable,
                    missing=e.missing,
                )
                granted, _, left = redis.run(call)  # type: ignore[misc]
                reply = [Grant(granted == 1, left / 1000)]
                effect = _MINE if granted else _KEEP
            case Fill(channel, [e]):
                token = "T" if mine else "another"
                reply = [
                    redis.run(
                        scripts.fill(KEYS, channel, e.key, token, e.as_of, e.value, e.seconds)
                    )
                    == 1
                ]
            case Mark(changed):
                for call in writes.marks(KEYS, changed):
                    redis.run(call)
            case Invalidate(changed):
                _invalidate(redis, changed)
                versions = {write.version for write in changed}
                applied = max(applied, *versions)
                if self._keeps_acknowledged:
                    acknowledged = tuple(sorted({*acknowledged, *versions}))
            case Replay(order):
                again = () if order == "none" else acknowledged
                for version in sorted(again, reverse=order == "newest first"):
                    index = [entry[0] for entry in shared.log].index(version)
                    _invalidate(redis, [written(shared.log, index)])
                trusted = True
            case _:
                raise AssertionError(f"nobody explores {request}")
        if held and self._lease not in redis.data:
            effect = _GONE
        after = attrs.evolve(
            shared,
            redis=tuple(sorted(redis.data.items(), key=lambda item: item[0])),
            applied=applied,
            acknowledged=acknowledged,
            trusted=trusted,
        )
        return after, reply, effect

    def _trace(self, state: State, parents: dict[State, State | None]) -> tuple[str, ...]:
        """How a state was reached: what stood there and what each process asked."""
        found: list[str] = []
        reached: State | None = state
        while reached is not None:
            sid, codes = reached
            asked = [_short(self._nodes[c >> 2].request) + "*"[: c >> 1 & 1] for c in codes if c]
            shared = self._shared[sid]
            held = {key.rpartition("}:")[2]: value[0] for key, value in shared.redis}
            found.append(f"{shared.log[-1:]} {held} | {', '.join(asked)}")
            reached = parents[reached]
        return tuple(reversed(found))


def _short(request: Any) -> str:
    return type(request).__name__


def _invalidate(redis: RedisModel, changed: Sequence[ChannelWrite]) -> None:
    for call in writes.invalidations(KEYS, changed, LIVES, capacity=CAPACITY):
        redis.run(call)


def _check_answer(answer: object, replies: tuple[Any, ...]) -> None:
    """An answer of the protocol is what its last `Get` or `Load` said."""
    if isinstance(answer, Answer):
        said = [r for r in replies if _is_said(r)][-1]
        if isinstance(said, Loaded):
            value = (
                said.value
                if not isinstance(said.value, dict)
                else next(iter(said.value.values()), None)
            )
            assert answer.value == value
        else:
            assert said[0] is not None
            assert answer.hits == 1


def _is_said(reply: Any) -> bool:
    return isinstance(reply, Loaded) or (
        isinstance(reply, list) and len(reply) == 1 and isinstance(reply[0], bytes | None)
    )

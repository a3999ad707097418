"""A leg of a journey: one service of a request by one pool, which a policy waits for, races or cancels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.request import Request
from sim.results import STATUSES

if TYPE_CHECKING:
    from sim.fleet.pool import LivePool
    from sim.serving.engine import Engine
    from sim.serving.sequence import Sequence

COMPLETED, REJECTED, FAILED, CANCELLED = (
    STATUSES.index(name) for name in ("completed", "rejected", "failed", "cancelled")
)


class Pending:
    """Something that will happen. A policy that yields it goes on when it has, and gets its value.

    Attributes:
        done: whether it has happened.
    """

    __slots__ = ("_heirs", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: Any = None
        self._heirs: list[Callable[[Any], None]] = []

    @property
    def value(self) -> Any:
        """What came of it."""
        return self._value

    def then(self, call: Callable[[Any], None]) -> None:
        """Call `call(value)` once it has happened: at once if it has."""
        if self.done:
            call(self.value)
        else:
            self._heirs.append(call)

    def settle(self, value: Any = None) -> None:
        """It happens now; a second time is none."""
        if self.done:
            return
        self.done, self._value = True, value
        heirs, self._heirs = self._heirs, []
        for call in heirs:
            call(self.value)


class Leg(Pending):
    """One service by one pool; happens when the pool is through with it. Its value is itself.

    Attributes:
        client: the request of the client whom it is for.
        pool: who serves; replica: which of its replicas, once it is there.
        request: what the pool is asked: prompt and output tokens of its own, the client's arrival.
        role: what it is for: ``answer``, or another word, such as ``draft`` or ``validate``; only answers stream to
            the client.
        useful: share of its work that is no waste, in [0, 1], if it went into the answer at all; policies set it.
        rejected: output tokens of it that turned out to be waste although the leg is useful; policies count them.
        status: index into `sim.results.STATUSES`, once it is done.
        keep: whether to note the time of each token; times: those, at the engine [s], once it is done.
        sequence: what the engine has of it; doomed: True if it is to be cancelled as soon as it gets to an engine.
    """

    __slots__ = (
        "_first", "client", "doomed", "keep", "pool", "rejected", "replica", "request", "role", "sequence", "status",
        "times", "useful",
    )  # fmt: skip

    def __init__(self, client: Request, pool: LivePool, request: Request, role: str, keep: bool) -> None:
        super().__init__()
        self.client, self.pool, self.request, self.role, self.keep = client, pool, request, role, keep
        self.replica = self.status = -1
        self.useful, self.rejected = 1.0, 0
        self.doomed = False
        self.sequence: Sequence | None = None
        self.times: list[float] = []
        self._first: Pending | None = None

    @property
    def ok(self) -> bool:
        """Whether it has all its tokens."""
        return self.status == COMPLETED

    @property
    def outcome(self) -> str:
        """How it ended, one of `sim.results.STATUSES`."""
        return STATUSES[self.status]

    @property
    def first(self) -> Pending:
        """Happens when the first token is out, or the leg ends without one; its value is the leg."""
        if self.done:
            out = Pending()
            out.settle(self)
            return out
        if self._first is None:
            self._first = Pending()
            if self.sequence is not None and self.sequence.first_s >= 0.0:
                self._first.settle(self)
            elif self.sequence is not None:
                self.sequence.on_first = self._on_first
        return self._first

    @property
    def value(self) -> Any:
        """The leg itself."""
        return self

    def emitted(self) -> int:
        """Output tokens at the engine by now."""
        if self.sequence is None:
            return 0
        return self.pool.emitted(self.sequence, self.replica)

    def queued(self, sequence: Sequence, replica: int) -> None:
        """It is about to enter a replica's queue."""
        self.sequence, self.replica = sequence, replica
        if self._first is not None:
            sequence.on_first = self._on_first

    def end(self, status: int, engine: Engine | None = None) -> None:
        """The pool is through with it."""
        self.status = status
        if self.keep and self.sequence is not None and engine is not None:
            self.times = token_times(engine, self.sequence)
        self.settle()
        if self._first is not None:
            self._first.settle(self)
        # circles are left to the garbage collector, which took a third of the time of runs with a leg for each request
        self.request.leg = self._first = None
        if self.sequence is not None:
            self.sequence.on_first = None

    def _on_first(self, _: Sequence) -> None:
        assert self._first is not None
        self._first.settle(self)


def token_times(engine: Engine, seq: Sequence) -> list[float]:
    """When the engine emitted each token of a sequence that has just ended there [s]: at most those it got."""
    if not seq.emitted:
        return []
    times, pace, parts = [], engine.pace, engine.parts
    start = seq.first_s
    for first, last, gap in [*(seq.segments or ()), (seq.row, seq.last_row, 0.0)]:
        times.append(start)
        ends = [start]
        for t, k, a, b, *_ in engine.rows[first - engine.first_row : last + 1 - engine.first_row]:
            ends += [t + i * a + b * (i * (i - 1) * 0.5) for i in range(1, k + 1)]
        tokens = (len(ends) - 1) * pace // parts
        times += [ends[-(-i * parts // pace)] for i in range(1, tokens + 1)]
        start = ends[-1] + gap
    return times[: seq.emitted]

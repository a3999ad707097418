"""Conversations whose next turn waits for the answer: its time depends on the fleet, its content does not.

Everything about a conversation is drawn when it is, in an order that no answer can change: the same seed gives the same
turns, lengths and think times under every router. Only when turns come differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np

from sim.errors import InputError
from sim.request import NO_TRAITS, Request
from sim.rng import Streams
from sim.workload import checks
from sim.workload.arrivals import ArrivalProcess
from sim.workload.base import RequestBatch
from sim.workload.lengths import FloatArray, LengthModel
from sim.workload.sessions import SessionSource, SessionWorkload, traits_of
from sim.workload.turns import Columns, ThinkTime

BATCH = 4096


class ClosedSessionWorkload(SessionWorkload):
    """Conversations of several turns, the next of which comes after the answer to the one before.

    A turn comes its think time after the user got the last token before it, and later by what is then left to read:
    `answer x read_token_s - (last token - first token)`, if that is above 0. A conversation ends with its last turn, or
    with one that is not answered. Conversations begin as `arrivals` say. Or `users` of a fixed population have one
    after the other: each begins as another turn would, the first one a think time after t = 0.

    Args:
        lengths, turns, think: as in `SessionWorkload`; the think time begins with the last token.
        arrivals: when conversations begin; None with `users`.
        users: how many users there are; None with `arrivals`.
        read_token_s: time to read a token of the answer, which begins with its first token [s].
        more: as in `SessionWorkload`.
    """

    def __init__(
        self,
        lengths: LengthModel,
        turns: object,
        think: ThinkTime | Mapping[str, object],
        arrivals: ArrivalProcess | None = None,
        users: int | None = None,
        read_token_s: float = 0.0,
        **more: Any,
    ) -> None:
        if (arrivals is None) == (users is None):
            raise InputError("workload.users", users, "a number of users, or null where workload.arrivals is given")
        self.users = None if users is None else checks.whole("workload.users", users, 1, 10**6)
        self.read_token_s = checks.number("workload.read_token_s", read_token_s, "a time >= 0 s", 0.0)
        super().__init__(arrivals or _Never(), lengths, turns, think, **more)
        if self.think.output_token_s:
            accepted = "0 in a closed loop, where answers take the time they take; see workload.read_token_s"
            raise InputError("workload.think.output_token_s", self.think.output_token_s, accepted)

    def loop(self, streams: Streams, end_s: float, announce: Callable[[float], None]) -> SessionLoop:
        """What draws conversations and is told of answers; `announce` is told when a turn will come."""
        return SessionLoop(self, streams, min(end_s, self.duration_s), announce)

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        """Yield the requests as they would come if answers took no time; a run asks `loop` instead."""
        loop = self.loop(streams, np.inf, lambda _: None)
        loop.begin()
        rows: list[tuple[Request, int]] = []
        number = 0
        while loop.pending:
            taken = loop.take(number)
            if taken is None:
                continue
            rows.append((taken, loop.session_of(number)))
            loop.answered(number, True, taken.arrival_s, taken.arrival_s)
            number += 1
            if len(rows) == BATCH:
                yield _batch(rows)
                rows = []
        if rows:
            yield _batch(rows)

    def expected_requests(self) -> float | None:
        """About how many requests will come, if answers take no time."""
        if self.users is None or np.isinf(self.duration_s):
            return super().expected_requests()
        most = self.users * self.duration_s / self.think.mean_s
        return most if self.limit is None else min(most, self.limit)


class SessionLoop:
    """The conversations of one run.

    Args:
        workload: whose.
        streams: of the run.
        end_s: turns that would come at or after it do not [s].
        announce: called with the time of each turn that will come; `take` then hands over the earliest.

    Attributes:
        begun: conversations that had a turn; finished: those whose every turn was answered; broken: those that ended
            with a turn that was not; cut: those that `end_s` or the limit ended.
    """

    def __init__(
        self, workload: ClosedSessionWorkload, streams: Streams, end_s: float, announce: Callable[[float], None]
    ) -> None:
        self._source = SessionSource(workload, streams, keeps_pauses=True)
        self._workload, self._streams, self._end_s, self._announce = workload, streams, end_s, announce
        self._left = np.inf if workload.limit is None else workload.limit
        self._coming: list[tuple[float, int, _Session]] = []
        self._asked: dict[int, _Session] = {}
        self._starts: Iterator[_Session] = iter(())
        self._rounds: dict[int, dict[int, _Session]] = {}
        self._last_s = 0.0
        self.begun = self.finished = self.broken = self.cut = 0

    @property
    def pending(self) -> bool:
        """Whether a turn will come."""
        return bool(self._coming)

    def counts(self) -> dict[str, int]:
        """Conversations by how they ended; those open still wait for an answer."""
        ended = self.finished + self.broken + self.cut
        named = {"begun": self.begun, "finished": self.finished, "broken": self.broken, "cut": self.cut}
        return {**named, "open": self.begun - ended}

    def begin(self) -> None:
        """Announce the first turns."""
        users = self._workload.users
        if users is None:
            self._starts = self._arriving()
            self._begin_next()
            return
        pauses = self._workload.think.sample(self._streams.get("users"), np.zeros(users, dtype=np.int64))
        for user, pause_s in enumerate(pauses.tolist()):
            self._push(pause_s, self._session(user, 0))

    def take(self, number: int) -> Request | None:
        """The earliest turn that has been announced, as request `number`; None where the limit keeps it from coming."""
        arrival_s, _, session = heappop(self._coming)
        if session.at == session.first:
            if self._left > 0:
                self.begun += 1
            self._begin_next()
        if self._left <= 0:
            self.cut += session.at > session.first
            return None
        self._left -= 1
        # timers of several turns may be a rounding error apart from their times
        self._last_s = max(self._last_s, arrival_s)
        self._asked[number] = session
        return session.next_turn(number, self._last_s)

    def answered(self, number: int, completed: bool, first_s: float, last_s: float, now_s: float = 0.0) -> None:
        """Request `number` has ended; with an answer, its user got the first and last token then [s].

        What follows comes no earlier than `now_s`: a policy may close a request long after its last token.
        """
        session = self._asked.pop(number)
        pause_s = session.pause_s
        if completed:
            pause_s += max(0.0, self._workload.read_token_s * session.answer - (last_s - first_s))
        if completed and session.at < session.end:
            self._push(max(last_s + pause_s, now_s), session)
            return
        self.finished += completed
        self.broken += not completed
        if self._workload.users is not None:
            self._push(max(last_s + pause_s, now_s), self._session(session.user, session.round + 1))

    def session_of(self, number: int) -> int:
        """Number of the conversation that a request which waits for its answer is a turn of."""
        return self._asked[number].number

    def _push(self, at_s: float, session: _Session) -> None:
        if at_s >= self._end_s:
            self.cut += session.at > session.first
            return
        heappush(self._coming, (at_s, session.number, session))
        self._announce(at_s)

    def _begin_next(self) -> None:
        """Announce the next conversation of those that arrive."""
        session = next(self._starts, None) if self._left > 0 else None
        if session is not None:
            self._push(session.start_s, session)

    def _arriving(self) -> Iterator[_Session]:
        for starts in self._workload.arrivals.times(self._streams.get("arrivals")):
            if len(starts):
                yield from _drawn(self._source, starts)
                if starts[-1] >= self._end_s:
                    return

    def _session(self, user: int, turn: int) -> _Session:
        """A user's conversation number `turn` (from 0); those of all users are drawn together, whoever asks first."""
        users = self._workload.users
        assert users is not None
        if turn not in self._rounds:
            self._rounds[turn] = dict(enumerate(_drawn(self._source, np.zeros(users))))
        waiting = self._rounds[turn]
        session = waiting.pop(user)
        session.user, session.round = user, turn
        if not waiting and turn:  # nobody comes back to it
            del self._rounds[turn]
        return session


class _Drawn:
    """Turns of several conversations, drawn together."""

    def __init__(self, source: SessionSource, turns: Columns) -> None:
        self._source, self._turns = source, turns
        self.pauses, self.answers = turns["pause_s"].tolist(), turns["output"].tolist()
        self._prompts, self._classes = turns["prompt"].tolist(), turns["slo_class"].tolist()
        self._traits = traits_of(turns).rows()

    def request(self, at: int, number: int, arrival_s: float) -> Request:
        """Turn `at`, as a request."""
        hashes = self._source.hashes(self._turns, slice(at, at + 1))[0]
        traits = NO_TRAITS if self._traits is None else self._traits[at]
        prompt, answer, slo_class = self._prompts[at], self.answers[at], self._classes[at]
        return Request(number, arrival_s, prompt, answer, slo_class, 0, hashes, traits)


class _Session:
    """One conversation.

    Attributes:
        number: from 0, in the order in which they were drawn; start_s: when it begins, where that is drawn [s].
        first, at, end: of its turns among those drawn together: the first, the next one, and the one after its last.
        user, round: whose it is, and the how manyth of that user; of a fixed population alone.
    """

    __slots__ = ("_drawn", "at", "end", "first", "number", "round", "start_s", "user")

    def __init__(self, drawn: _Drawn, number: int, start_s: float, first: int, end: int) -> None:
        self._drawn, self.number, self.start_s = drawn, number, start_s
        self.first, self.at, self.end = first, first, end
        self.user = self.round = 0

    def next_turn(self, number: int, arrival_s: float) -> Request:
        """Its next turn, as request `number`."""
        self.at += 1
        return self._drawn.request(self.at - 1, number, arrival_s)

    @property
    def pause_s(self) -> float:
        """Think time after the turn that it is at [s]."""
        return float(self._drawn.pauses[self.at - 1])

    @property
    def answer(self) -> int:
        """Tokens of the answer to the turn that it is at."""
        return int(self._drawn.answers[self.at - 1])


def _drawn(source: SessionSource, starts: FloatArray) -> Iterator[_Session]:
    """Conversations that begin at these times [s]."""
    turns = source.turns(starts)
    drawn, numbers = _Drawn(source, turns), turns["session"]
    first = np.flatnonzero(np.diff(numbers, prepend=-1))
    ends = [*first[1:].tolist(), len(numbers)]
    for number, start_s, at, end in zip(numbers[first].tolist(), starts.tolist(), first.tolist(), ends):
        yield _Session(drawn, number, start_s, at, end)


class _Never:
    """Arrivals of a population whose users are there from the start."""

    def times(self, rng: np.random.Generator) -> Iterator[FloatArray]:
        """None."""
        return iter(())


def _batch(rows: Sequence[tuple[Request, int]]) -> RequestBatch:
    """Requests and their conversations as columns."""
    requests, sessions = zip(*rows)
    return RequestBatch(
        np.array([request.arrival_s for request in requests]),
        np.array([request.prompt for request in requests], dtype=np.int64),
        np.array([request.output for request in requests], dtype=np.int64),
        np.array([request.slo_class for request in requests], dtype=np.int64),
        hashes=[tuple(request.hashes or ()) for request in requests],
        traits=[request.traits for request in requests],
        session=np.array(sessions, dtype=np.int64),
    )

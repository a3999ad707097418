"""Requests that come because others were answered: lets a closed workload hear of the ends of its requests."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from simpy.events import NORMAL

from sim.errors import InputError
from sim.fleet.leg import COMPLETED
from sim.fleet.pool import Done, LivePool
from sim.request import Request
from sim.results import STATUSES
from sim.rng import Streams
from sim.serving.sequence import Sequence
from sim.serving.timer import Timer
from sim.workload.base import Workload

if TYPE_CHECKING:
    from sim.journey import Journey
    from sim.live import LiveRun

IN_FLIGHT = STATUSES.index("in_flight")


def feed_of(run: LiveRun, workload: Workload, streams: Streams) -> Feed | None:
    """The feed of a workload that has a `loop`; None for the others, which cost nothing.

    Raises:
        InputError: a pool's answers reach their users in a way that is worked out after the run alone.
    """
    if not hasattr(workload, "loop"):
        return None
    for pool in run.pools:
        if pool.spec.engine.detokenize_s:
            key = f"pools.{pool.name}.engine.detokenize_s"
            raise InputError(key, pool.spec.engine.detokenize_s, "0 where users wait for their answers")
    return Feed(run, workload, streams)


class Feed:
    """Hands a closed workload's turns to the run when their time comes, and tells it of their ends.

    Users have a token when it has come down the client's link, outages of which included.

    Attributes:
        loop: the workload's; see `sim.workload.closed.SessionLoop`.
    """

    def __init__(self, run: LiveRun, workload: Any, streams: Streams) -> None:
        self._run = run
        self._timer = Timer(run.env, self._due)
        self.loop = workload.loop(streams, run.horizon_s, self._announce)

    def begin(self) -> Iterator[Request]:
        """Let first turns come. Nothing is known beforehand, so what this returns is empty."""
        self.loop.begin()
        return iter(())

    def _announce(self, at_s: float) -> None:
        env = self._run.env
        env.schedule(self._timer, NORMAL, max(at_s - env.now, 0.0))

    def _due(self, event: Timer) -> None:
        event.callbacks = event.wake
        request = self.loop.take(self._run.arrived)
        if request is not None:
            self._run.come(request, event)

    # -- how requests end ---------------------------------------------------------------------------------------------

    def hearing(self, done: Done) -> Done:
        """Return `done`, followed by what the loop makes of it; legs of journeys are told of by `journeyed`."""

        def both(pool: LivePool, replica: int, seq: Sequence) -> None:
            done(pool, replica, seq)
            if seq.request.leg is None:
                self._answered(seq.request.id, seq.status, pool, seq)

        return both

    def refused(self, number: int) -> None:
        """A request was rejected when it came."""
        now = self._run.now
        self.loop.answered(number, False, now, now, now)

    def journeyed(self, journey: Journey, status: int, answer: int, first_s: float, last_s: float) -> None:
        """A journey has ended; NaN for the times of an answer that is the stream of leg number `answer`."""
        number = journey.request.id
        if status == IN_FLIGHT:
            return
        if status != COMPLETED:
            self.refused(number)
        elif math.isnan(last_s):
            leg = next(each for each in journey.legs if each.request.id == answer)
            assert leg.sequence is not None
            self._answered(number, status, leg.pool, leg.sequence)
        else:
            self.loop.answered(number, True, first_s, last_s, self._run.now)

    def _answered(self, number: int, status: int, pool: LivePool, seq: Sequence) -> None:
        """The stream of a sequence has ended; its user's tokens come later by the way down."""
        first_s, last_s, link = seq.first_s, seq.last_s, pool.link
        if link is not None:
            down_s = link.downlink_s(seq.request)
            if link.outages is not None:
                held = link.outages.stalls(np.array([first_s, last_s]), np.full(2, down_s))
                first_s, last_s = first_s + float(held[0]), last_s + float(held[1])
            first_s, last_s = first_s + down_s, last_s + down_s
        self.loop.answered(number, status == COMPLETED, first_s, last_s, self._run.now)

"""A capacity that transfers share: exact processor sharing, at O(log n) a transfer."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from simpy import Environment
from simpy.events import Event, Timeout

from sim.fleet.outages import Outages

#: Called with the delay that follows transmission [s], whom to tell, and what.
Transmitted = Callable[[float, Callable[[Any], None], Any], None]


class ProcessorSharing:
    """Transfers that share a capacity equally: of k under way, each gets 1/k of it.

    In virtual time every transfer gets one byte a unit, however many there are, so a transfer that starts at virtual
    time v ends at v + its bytes, and the order of the ends never changes. Virtual time runs at capacity / transfers,
    and stands still in an outage.

    Args:
        env: the SimPy environment.
        bytes_per_s: the capacity [bytes/s].
        transmitted: called when the last byte of a transfer has left.
        outages: of the link, or None.
    """

    __slots__ = (
        "_bytes_per_s", "_env", "_generation", "_outages", "_started", "_transfers", "_transmitted", "_updated_s",
        "_virtual",
    )  # fmt: skip

    def __init__(self, env: Environment, bytes_per_s: float, transmitted: Transmitted, outages: Outages | None) -> None:
        self._env = env
        self._bytes_per_s = bytes_per_s
        self._transmitted = transmitted
        self._outages = outages
        # heap by virtual end, then by start
        self._transfers: list[tuple[float, int, float, Callable[[Any], None], Any]] = []
        self._virtual = 0.0
        self._updated_s = 0.0
        self._started = 0
        self._generation = 0

    def start(self, nbytes: float, then_s: float, deliver: Callable[[Any], None], item: Any) -> None:
        """Begin a transfer of `nbytes` now, to be handed to `transmitted` with the rest."""
        now = self._env.now
        transfers = self._transfers
        if transfers:
            outages = self._outages
            up_s = now - self._updated_s if outages is None else outages.elapsed(self._updated_s, now)
            gained = up_s * self._bytes_per_s / len(transfers)
            # Rounding must not carry virtual time past the next end, which is still to come.
            self._virtual = min(self._virtual + gained, transfers[0][0])
        else:
            self._virtual = 0.0  # starts afresh when idle, so that it keeps its digits in a long run
        self._updated_s = now
        self._started += 1
        heappush(transfers, (self._virtual + nbytes, self._started, then_s, deliver, item))
        self._wake_at_next_end()

    def _wake_at_next_end(self) -> None:
        transfers = self._transfers
        delay_s = (transfers[0][0] - self._virtual) * len(transfers) / self._bytes_per_s
        if self._outages is not None:
            delay_s = self._outages.later(self._env.now, delay_s) - self._env.now
        # A transfer that starts before then makes this event stale; it is left to fire, and known by its generation.
        self._generation += 1
        Timeout(self._env, delay_s, self._generation).callbacks.append(self._wake)

    def _wake(self, event: Event) -> None:
        if event.value != self._generation:
            return
        transfers = self._transfers
        self._virtual = transfers[0][0]
        self._updated_s = self._env.now
        ended = []
        while transfers and transfers[0][0] <= self._virtual:
            ended.append(heappop(transfers))
        if transfers:
            self._wake_at_next_end()
        for _, _, then_s, deliver, item in ended:
            self._transmitted(then_s, deliver, item)

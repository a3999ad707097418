"""A client link at run time: latency, and bandwidth that concurrent uploads may share."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import numpy as np
from simpy import Environment
from simpy.events import Event, Timeout

from sim.fleet.link import Link
from sim.request import Request

Deliver = Callable[[Request], None]

_BLOCK = 1024  # latencies drawn at once: one numpy call costs as much as 50 draws of the standard library


class LiveLink:
    """Carries requests from clients to a site, and counts the bytes of both directions.

    An upload arrives at its start + transmission + one-way latency. Where the capacity is shared, the k uploads that
    are under way at an instant get 1/k of it each (egalitarian processor sharing); else each has all of it.

    Attributes:
        spec: what the link is.
        bytes_up, bytes_down: traffic so far [bytes].
    """

    __slots__ = ("_chunk_s", "_drawn", "_env", "_rng", "_sharing", "bytes_down", "bytes_up", "spec")

    def __init__(self, env: Environment, spec: Link, rng: np.random.Generator) -> None:
        self.spec = spec
        self.bytes_up = 0.0
        self.bytes_down = 0.0
        self._env = env
        self._rng = rng
        self._drawn: list[float] = []
        self._chunk_s = spec.chunk_bytes / spec.down_bytes_per_s
        shared = spec.shared and math.isfinite(spec.up_bytes_per_s)
        self._sharing = _ProcessorSharing(env, spec.up_bytes_per_s, self._transmitted) if shared else None

    def upload(self, nbytes: float, request: Request, deliver: Deliver) -> None:
        """Send `nbytes` of `request` now and call `deliver(request)` when they have arrived.

        Sets `request.net_s` to the one-way latency drawn for it. Without latency and transmission it delivers at once.
        """
        latency_s = request.net_s = self._latency_s()
        self.bytes_up += nbytes
        if self._sharing is not None:
            self._sharing.start(nbytes, request, deliver)
        else:
            self._after(latency_s + nbytes / self.spec.up_bytes_per_s, request, deliver)

    def downlink_s(self, request: Request) -> float:
        """Time from the pool to the client for one streamed chunk of `request` [s]."""
        return request.net_s + self._chunk_s

    def streamed(self, tokens: int) -> None:
        """Count the way back of `tokens` output tokens, one chunk each."""
        self.bytes_down += tokens * self.spec.chunk_bytes

    def energy_j(self) -> float | None:
        """Energy of all bytes so far [J], or None where the energy of a byte is unknown."""
        per_byte = self.spec.energy_j_per_byte
        return None if per_byte is None else per_byte * (self.bytes_up + self.bytes_down)

    def _transmitted(self, request: Request, deliver: Deliver) -> None:
        self._after(request.net_s, request, deliver)

    def _after(self, delay_s: float, request: Request, deliver: Deliver) -> None:
        if delay_s == 0.0:
            deliver(request)
            return
        # A callback instead of a process: an upload then costs one event.
        arrival = Timeout(self._env, delay_s, (request, deliver))
        arrival.callbacks.append(_arrived)

    def _latency_s(self) -> float:
        spec = self.spec
        if spec.latency_sigma == 0.0:
            return spec.latency_s
        if not self._drawn:
            normal = self._rng.standard_normal(_BLOCK)
            self._drawn = (spec.latency_s * np.exp(spec.latency_sigma * normal)).tolist()
        return self._drawn.pop()


def _arrived(event: Event) -> None:
    payload: Any = event.value
    request, deliver = payload
    deliver(request)


class _ProcessorSharing:
    """Transfers that share a capacity equally, at O(log n) each.

    In virtual time every transfer gets one byte a unit, however many there are, so a transfer that starts at virtual
    time v ends at v + its bytes, and the order of the ends never changes. Virtual time runs at capacity / transfers.
    """

    __slots__ = ("_bytes_per_s", "_done", "_env", "_generation", "_started", "_transfers", "_updated_s", "_virtual")

    def __init__(self, env: Environment, bytes_per_s: float, done: Callable[[Request, Deliver], None]) -> None:
        self._env = env
        self._bytes_per_s = bytes_per_s
        self._done = done
        self._transfers: list[tuple[float, int, Request, Deliver]] = []  # heap by virtual end, then by start
        self._virtual = 0.0
        self._updated_s = 0.0
        self._started = 0
        self._generation = 0

    def start(self, nbytes: float, request: Request, deliver: Deliver) -> None:
        """Begin a transfer of `nbytes` now."""
        now = self._env.now
        transfers = self._transfers
        if transfers:
            gained = (now - self._updated_s) * self._bytes_per_s / len(transfers)
            # Rounding must not carry virtual time past the next end, which is still to come.
            self._virtual = min(self._virtual + gained, transfers[0][0])
        else:
            self._virtual = 0.0  # starts afresh when idle, so that it keeps its digits in a long run
        self._updated_s = now
        self._started += 1
        heappush(transfers, (self._virtual + nbytes, self._started, request, deliver))
        self._wake_at_next_end()

    def _wake_at_next_end(self) -> None:
        transfers = self._transfers
        delay_s = (transfers[0][0] - self._virtual) * len(transfers) / self._bytes_per_s
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
        for _, _, request, deliver in ended:
            self._done(request, deliver)

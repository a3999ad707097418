"""The network at run time: links with latency, bandwidth that transfers may share, and outages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from simpy import Environment
from simpy.events import Event, Timeout

from sim.errors import InputError
from sim.fleet.link import CLIENT, Link
from sim.fleet.outages import Outages
from sim.fleet.sharing import ProcessorSharing
from sim.fleet.spec import Fleet
from sim.request import Request
from sim.rng import Streams

Deliver = Callable[[Request], None]

_BLOCK = 1024  # latencies drawn at once: one numpy call costs as much as 50 draws of the standard library


class LiveLink:
    """Carries requests from clients to a site, anything else between its two ends, and counts the bytes of both ways.

    A transfer arrives at its start + transmission + one-way latency, in the link's own time: an outage stops all of it.
    Where the capacity is shared, the k transfers that are under way in one direction at an instant get 1/k of it each
    (egalitarian processor sharing); else each has all of it.

    Args:
        env: the SimPy environment.
        spec: what the link is.
        rng: for the latencies of client requests.
        transfers: for the latencies of anything else, so that a policy moves no request's latency; `rng` by default.

    Attributes:
        spec: what the link is.
        bytes_up, bytes_down: traffic so far, from source to target and back [bytes].
        outages: when it is down, or None.
    """

    __slots__ = (
        "_chunk_s", "_down", "_drawn", "_drawn_transfers", "_env", "_rng", "_transfers", "_up", "bytes_down",
        "bytes_up", "outages", "spec",
    )  # fmt: skip

    def __init__(
        self, env: Environment, spec: Link, rng: np.random.Generator, transfers: np.random.Generator | None = None
    ) -> None:
        self.spec = spec
        self.bytes_up = 0.0
        self.bytes_down = 0.0
        self.outages = Outages(spec.outages) if spec.outages else None
        self._env = env
        self._rng, self._transfers = rng, transfers or rng
        self._drawn: list[float] = []
        self._drawn_transfers: list[float] = []
        self._chunk_s = spec.chunk_bytes / spec.down_bytes_per_s
        self._up, self._down = (
            ProcessorSharing(env, capacity, self._after, self.outages)
            if spec.shared and math.isfinite(capacity)
            else None
            for capacity in (spec.up_bytes_per_s, spec.down_bytes_per_s)
        )

    def upload(self, nbytes: float, request: Request, deliver: Deliver) -> None:
        """Send `nbytes` of `request` now and call `deliver(request)` when they have arrived.

        Sets `request.net_s` to the one-way latency drawn for it. Without latency and transmission it delivers at once.
        """
        latency_s = request.net_s = self._latency_s(self._rng, self._drawn)
        self.bytes_up += nbytes
        if self._up is not None:
            self._up.start(nbytes, latency_s, deliver, request)
        else:
            self._after(latency_s + nbytes / self.spec.up_bytes_per_s, deliver, request)

    def transfer(self, nbytes: float, up: bool, arrived: Callable[[], None]) -> None:
        """Send `nbytes` from source to target (`up`) or back, and call `arrived` when they are there, maybe at once."""
        latency_s = self._latency_s(self._transfers, self._drawn_transfers)
        spec = self.spec
        if up:
            self.bytes_up += nbytes
            sharing, capacity = self._up, spec.up_bytes_per_s
        else:
            self.bytes_down += nbytes
            sharing, capacity = self._down, spec.down_bytes_per_s
        if sharing is not None:
            sharing.start(nbytes, latency_s, _call, arrived)
        else:
            self._after(latency_s + nbytes / capacity, _call, arrived)

    @property
    def is_up(self) -> bool:
        """Whether it is in service now."""
        return self.outages is None or not self.outages.down(self._env.now)

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

    def _after(self, delay_s: float, deliver: Callable[[Any], None], item: Any) -> None:
        if self.outages is not None:
            delay_s = self.outages.later(self._env.now, delay_s) - self._env.now
        if delay_s == 0.0:
            deliver(item)
            return
        # A callback instead of a process: an upload then costs one event.
        arrival = Timeout(self._env, delay_s, (deliver, item))
        arrival.callbacks.append(_arrived)

    def _latency_s(self, rng: np.random.Generator, drawn: list[float]) -> float:
        spec = self.spec
        if spec.latency_sigma == 0.0:
            return spec.latency_s
        if not drawn:
            drawn.extend((spec.latency_s * np.exp(spec.latency_sigma * rng.standard_normal(_BLOCK))).tolist())
        return drawn.pop()


def _arrived(event: Event) -> None:
    payload: Any = event.value
    deliver, item = payload
    deliver(item)


def _call(arrived: Callable[[], None]) -> None:
    arrived()


class Network:
    """The links of a fleet, by the places they join: `CLIENT` and sites. A link carries both ways.

    A site without a client link is reached from clients, and they from it, at no delay (`sim.fleet.spec.Fleet`).

    Args:
        env: the SimPy environment.
        fleet: whose links they are.
        streams: the run's random streams.

    Attributes:
        links: all of them, in the order of the fleet.
    """

    def __init__(self, env: Environment, fleet: Fleet, streams: Streams) -> None:
        self._places = {CLIENT, *(site.name for site in fleet.sites)}
        self.links = tuple(
            LiveLink(env, link, streams.get(f"link {link.name}"), streams.get(f"transfers {link.name}"))
            for link in fleet.links
        )
        self._between = {
            pair: (live, up)
            for live in self.links
            for pair, up in (
                ((live.spec.source, live.spec.target), True),
                ((live.spec.target, live.spec.source), False),
            )
        }

    def client_link(self, site: str) -> LiveLink | None:
        """What joins clients to a site, or None."""
        found = self._between.get((CLIENT, site))
        return None if found is None else found[0]

    def joined(self, source: str, target: str) -> bool:
        """Whether anything can get from one place to the other."""
        if (source, target) in self._between:
            return True
        return {source, target} <= self._places and (source == target or CLIENT in (source, target))

    def transfer(self, source: str, target: str, nbytes: float, arrived: Callable[[], None]) -> None:
        """Send `nbytes` now, and call `arrived` when they are there: before this returns, if that takes no time.

        Raises:
            InputError: no link joins the two places.
        """
        link = self._link(source, target)
        if link is None:
            arrived()
        else:
            link[0].transfer(nbytes, link[1], arrived)

    def latency_s(self, source: str, target: str) -> float:
        """Median one-way latency [s].

        Raises:
            InputError: no link joins the two places.
        """
        link = self._link(source, target)
        return 0.0 if link is None else link[0].spec.latency_s

    def up(self, source: str, target: str) -> bool:
        """Whether what joins two places is in service now; False if nothing does."""
        if not self.joined(source, target):
            return False
        link = self._link(source, target)
        return link is None or link[0].is_up

    def energy_j(self, source: str, target: str, nbytes: float) -> float | None:
        """Energy of a transfer [J], or None where it is unknown.

        Raises:
            InputError: no link joins the two places.
        """
        link = self._link(source, target)
        if link is None:
            return 0.0
        per_byte = link[0].spec.energy_j_per_byte
        return None if per_byte is None else per_byte * nbytes

    def _link(self, source: str, target: str) -> tuple[LiveLink, bool] | None:
        found = self._between.get((source, target))
        if found is None and not self.joined(source, target):
            raise InputError("fleet.links", f"{source} to {target}", "a link that joins them")
        return found

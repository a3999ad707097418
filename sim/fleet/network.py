"""The network at run time: links with latency, bandwidth that transfers may share, and outages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
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

    A transfer arrives after the wait for a grant (up only) + transmission + one-way latency, in the link's own time: an
    outage stops all of it. Where the capacity is shared, the k transfers that are under way in one direction (and cell)
    at an instant get 1/k of it each (egalitarian processor sharing); else each has all of it.

    Args:
        env: the SimPy environment.
        spec: what the link is.
        streams: the run's. Latencies of requests and of anything else are drawn from two, so that a policy moves no
            request's latency.

    Attributes:
        spec: what the link is.
        bytes_up, bytes_down: traffic so far, from source to target and back [bytes].
        outages: when it is down, or None.
    """

    __slots__ = (
        "_cell", "_chunk_s", "_down", "_env", "_grant", "_latency", "_latency_s", "_transfer_latency", "_up",
        "bytes_down", "bytes_up", "outages", "spec",
    )  # fmt: skip

    def __init__(self, env: Environment, spec: Link, streams: Streams) -> None:
        self.spec = spec
        self.bytes_up = 0.0
        self.bytes_down = 0.0
        self.outages = Outages(spec.outages) if spec.outages else None
        self._env = env
        self._latency_s = spec.latency_s
        self._latency = self._transfer_latency = None
        latency = spec.distribution
        if latency is not None:
            self._latency = Drawn(latency.draw, streams.get(f"link {spec.name}"))
            self._transfer_latency = Drawn(latency.draw, streams.get(f"transfers {spec.name}"))
        self._chunk_s = spec.chunk_bytes / spec.down_bytes_per_s
        self._up, self._down = (
            [ProcessorSharing(env, capacity, self._after, self.outages) for _ in range(spec.cells)]
            if spec.shared and math.isfinite(capacity)
            else []
            for capacity in (spec.up_bytes_per_s, spec.down_bytes_per_s)
        )
        uniform = np.random.Generator.random
        self._cell = Drawn(uniform, streams.get(f"cells {spec.name}")) if spec.cells > 1 else None
        granted = spec.grant_s or spec.grant_period_s
        self._grant = Drawn(uniform, streams.get(f"grants {spec.name}")) if granted else None

    def upload(self, nbytes: float, request: Request, deliver: Deliver) -> None:
        """Send `nbytes` of `request` now and call `deliver(request)` when they have arrived.

        Sets `request.net_s` to the one-way latency drawn for it. Without latency and transmission it delivers at once.
        """
        latency_s = request.net_s = self._latency_s if self._latency is None else self._latency.next()
        self._send_up(nbytes, latency_s, deliver, request)

    def join(self, request: Request) -> None:
        """Draw the one-way latency of a request that gets to the target another way; its answer comes back over this
        link."""
        request.net_s = self._latency_s if self._transfer_latency is None else self._transfer_latency.next()

    def transfer(self, nbytes: float, up: bool, arrived: Callable[[], None]) -> None:
        """Send `nbytes` from source to target (`up`) or back, and call `arrived` when they are there, maybe at once."""
        latency_s = self._latency_s if self._transfer_latency is None else self._transfer_latency.next()
        if up:
            self._send_up(nbytes, latency_s, _call, arrived)
        else:
            self.bytes_down += nbytes
            self._transmit(self._down, self.spec.down_bytes_per_s, nbytes, latency_s, _call, arrived)

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

    def _send_up(self, nbytes: float, latency_s: float, deliver: Callable[[Any], None], item: Any) -> None:
        spec = self.spec
        self.bytes_up += nbytes
        if self._grant is None:
            self._transmit(self._up, spec.up_bytes_per_s, nbytes, latency_s, deliver, item)
            return
        wait_s = spec.grant_s + spec.grant_period_s * self._grant.next()
        self._after(wait_s, self._granted, (self._up, spec.up_bytes_per_s, nbytes, latency_s, deliver, item))

    def _granted(self, rest: tuple[Any, ...]) -> None:
        self._transmit(*rest)

    def _transmit(
        self,
        cells: list[ProcessorSharing],
        bytes_per_s: float,
        nbytes: float,
        latency_s: float,
        deliver: Callable[[Any], None],
        item: Any,
    ) -> None:
        if not cells:
            self._after(latency_s + nbytes / bytes_per_s, deliver, item)
            return
        cell = 0 if self._cell is None else int(self._cell.next() * len(cells))
        cells[cell].start(nbytes, latency_s, deliver, item)

    def _after(self, delay_s: float, deliver: Callable[[Any], None], item: Any) -> None:
        if self.outages is not None:
            delay_s = self.outages.later(self._env.now, delay_s) - self._env.now
        if delay_s == 0.0:
            deliver(item)
            return
        # A callback instead of a process: an upload then costs one event.
        arrival = Timeout(self._env, delay_s, (deliver, item))
        arrival.callbacks.append(_arrived)


class Drawn:
    """Random numbers one by one, drawn many at once.

    Args:
        draw: gives as many as it is asked for, of a generator.
        rng: the generator.
    """

    __slots__ = ("_draw", "_left", "_rng")

    def __init__(self, draw: Callable[[np.random.Generator, int], npt.NDArray[np.float64]], rng: np.random.Generator):
        self._draw, self._rng = draw, rng
        self._left: list[float] = []

    def next(self) -> float:
        """The next one."""
        if not self._left:
            self._left = self._draw(self._rng, _BLOCK).tolist()
        return self._left.pop()


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
        self.links = tuple(LiveLink(env, link, streams) for link in fleet.links)
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

    def linked(self, one: str, other: str) -> bool:
        """Whether two places are one, or a link joins them, so that nothing goes by way of clients."""
        return one == other or (one, other) in self._between

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
        return 0.0 if link is None else link[0].spec.median_latency_s

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

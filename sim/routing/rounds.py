"""What policies share whose requests go back and forth between places that keep their KV caches meanwhile."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

from sim.answer import Part
from sim.errors import InputError
from sim.fleet.leg import Leg, Pending
from sim.fleet.link import CLIENT
from sim.journey import Journey, Steps
from sim.request import Request
from sim.routing.base import FleetView, PoolView
from sim.routing.candidates import side
from sim.routing.slo import require_known


class Stay(Pending):
    """A request's place on a replica; happens when it has one, or there will be none (`pool` is then None).

    Attributes:
        tokens: KV cache that is set aside for it [tokens].
        pool, replica: where.
    """

    __slots__ = ("replica", "tokens")

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.replica = tokens, 0

    @property
    def pool(self) -> Any:
        """The pool that has it, or None."""
        return self.value


class Homes:
    """Replicas that keep the KV caches of requests from their first round to their last.

    Engines hold a leg's KV cache while it runs. Between the legs of a request its cache has to stay, so each request
    sets the memory of its whole length aside before it begins, and those who find none wait, first come first served.

    Args:
        pools: whose replicas they are.
    """

    def __init__(self, pools: Sequence[PoolView]) -> None:
        self._pools: list[Any] = list(pools)
        self._free = [[pool.blocks * pool.spec.engine.block_size] * pool.replicas for pool in self._pools]
        self._queue: deque[Stay] = deque()

    def enter(self, tokens: int) -> Stay:
        """Ask for a place with room for so many tokens, where most is free."""
        stay = Stay(tokens)
        self._queue.append(stay)
        self._admit()
        return stay

    def leave(self, stay: Stay) -> None:
        """Give a place up, or the wait for it."""
        if not stay.done:
            if stay in self._queue:
                self._queue.remove(stay)
        elif stay.pool is not None:
            self._free[self._pools.index(stay.pool)][stay.replica] += stay.tokens
        self._admit()

    def _admit(self) -> None:
        while self._queue:
            stay = self._queue[0]
            open_ = [i for i, pool in enumerate(self._pools) if pool.up and pool.max_tokens >= stay.tokens]
            rooms = [(max(self._free[i]), i) for i in open_]
            most, at = max(rooms, key=lambda each: each[0], default=(stay.tokens, -1))
            if most < stay.tokens:
                return
            self._queue.popleft()
            if at >= 0:
                stay.replica = self._free[at].index(most)
                self._free[at][stay.replica] -= stay.tokens
            stay.settle(self._pools[at] if at >= 0 else None)


class BackAndForth(ABC):
    """A policy whose requests go back and forth between a pool near the client and one that is far, in rounds.

    Args:
        name: its own, for errors.
        sides: key and value of each of the two settings that name a kind of site or a pool: near, then far.
    """

    balancer = "least_outstanding"

    def __init__(self, name: str, **sides: str) -> None:
        self._name, self._sides = name, sides
        (_, near), (key, far) = sides.items()
        if near == far:
            raise InputError(f"router.{key}", far, f"another side than the other setting's ({near})")

    def bind(self, fleet: FleetView) -> None:
        """Check that both sides are there, and joined."""
        near, far = (side(fleet, f"router.{key}", value).pools for key, value in self._sides.items())
        check_rounds(fleet, self._name, near, far)
        for one in near:
            for other in far:
                self.check(one, other)
        self._near, self._far = Homes(near), Homes(far)

    def check(self, near: Any, far: Any) -> None:  # noqa: B027 - not every policy has something to check
        """Check that a near pool and a far one can serve the same request."""

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Go on in rounds, once there is room on both sides."""
        length = request.prompt + request.output
        near, far = self._near.enter(length), Stay(length)
        try:
            yield near
            far = self._far.enter(length)
            yield far
            if near.pool is None or far.pool is None:
                return "rejected"
            return (yield from self.rounds(request, fleet, near, far))
        finally:
            self._near.leave(near)
            self._far.leave(far)

    @abstractmethod
    def rounds(self, request: Request, fleet: Journey, near: Stay, far: Stay) -> Steps:
        """All rounds of a request, at its two places."""


def check_rounds(fleet: Any, name: str, near: Sequence[Any], far: Sequence[Any]) -> None:
    """Check that rounds can go on between pools near clients and pools far from them.

    Raises:
        InputError: a pool is on both sides, nothing joins two of their sites, or a front end would see every round.
    """
    every = [*near, *far]
    require_known(name, "KV cache", every, (math.isnan(pool.kv_bytes_per_token) for pool in every))
    for pool in every:
        if pool.spec.plan is not None:
            raise InputError(f"pools.{pool.name}.plan", "a plan", f"null with {name}, which keeps caches on replicas")
        engine = pool.spec.engine
        for key in ("front_end_s", "tokenize_s", "tokenize_s_per_token", "detokenize_s"):
            if getattr(engine, key):
                accepted = f"0 with {name}, whose rounds are no requests of clients"
                raise InputError(f"pools.{pool.name}.engine.{key}", getattr(engine, key), accepted)
    for one in near:
        for other in far:
            if one is other:
                raise InputError("router", name, f"two sides without a pool in common, unlike {one.name}")
            if not joined(fleet, one.site_name, other.site_name):
                accepted = f"a link that joins {one.site_name} and {other.site_name}, for the rounds of {name}"
                raise InputError("fleet.links", None, accepted)


def joined(fleet: FleetView, near: str, far: str) -> bool:
    """Whether something joins two sites: a link, or that of clients to the far one if they are at the near one."""
    return fleet.linked(near, far) or not fleet.linked(CLIENT, near)


def place_of(fleet: FleetView, near: str, far: str) -> str:
    """What the near site is to the far one's network: itself, or clients, who are where it is."""
    return near if fleet.linked(near, far) else CLIENT


def send_back(fleet: Journey, leg: Leg, nbytes: float, tokens: int, home: Leg, here: str) -> Generator[Any, Any, Part]:
    """Send `nbytes` back from the far side, and on to the client, from where `home` was served, `tokens` tokens."""
    yield fleet.transfer(nbytes, leg.pool.site_name, here)
    return fleet.relay(leg, tokens, by=home)


def ending(*legs: Leg) -> str:
    """How a request ends of which one of these legs is not well."""
    return next(leg.outcome for leg in legs if not leg.ok)

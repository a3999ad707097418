"""The pools that a router considers, and the comparisons that several routers share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sim.errors import InputError
from sim.fleet.spec import SITE_KINDS
from sim.request import Request
from sim.routing.base import FleetView, PoolView


class Candidates:
    """A fixed set of pools, of which a request sees those that can hold its prompt and output.

    Args:
        pools: in the order of the configuration.
    """

    __slots__ = ("_fits_all", "_may_fail", "pools")

    def __init__(self, pools: Sequence[PoolView]) -> None:
        self.pools = list(pools)
        self._may_fail = any(getattr(pool, "may_fail", False) for pool in self.pools)
        self._fits_all = min((pool.max_tokens for pool in self.pools), default=0)

    def holding(self, request: Request) -> list[PoolView]:
        """The pools in service that can hold `request`; possibly none."""
        tokens = request.prompt + request.output
        if self._may_fail:
            return [pool for pool in self.pools if pool.up and pool.max_tokens >= tokens]
        if tokens <= self._fits_all:
            return self.pools
        return [pool for pool in self.pools if pool.max_tokens >= tokens]


def of_kind(fleet: FleetView, kind: str) -> Candidates:
    """The pools at sites of one kind."""
    return Candidates([pool for pool in fleet.pools if pool.site_kind == kind])


def require_kind(fleet: FleetView, kind: str, router: str) -> Candidates:
    """The pools at sites of one kind, of which there has to be at least one.

    Raises:
        InputError: the fleet has no pool at such a site.
    """
    candidates = of_kind(fleet, kind)
    if not candidates.pools:
        kinds = ", ".join(sorted({pool.site_kind for pool in fleet.pools})) or "no pool at all"
        raise InputError("router", router, f"a fleet with a {kind} site; this one has: {kinds}")
    return candidates


def side(fleet: FleetView, key: str, name: object) -> Candidates:
    """The pools that a setting names: those at sites of a kind, or one pool by its name.

    Raises:
        InputError: there are none.
    """
    pools = [pool for pool in fleet.pools if pool.name == name]
    pools = pools or [pool for pool in fleet.pools if pool.site_kind == name]
    if not pools:
        named = dict.fromkeys([pool.site_kind for pool in fleet.pools] + [pool.name for pool in fleet.pools])
        raise InputError(key, name, f"a kind of site or a pool of the fleet: {', '.join(named)}")
    return Candidates(pools)


def check_kind(key: str, kind: object) -> str:
    """Return `kind` if it is one of the kinds of site.

    Raises:
        InputError: it is not.
    """
    if not isinstance(kind, str) or kind not in SITE_KINDS:
        raise InputError(key, kind, " | ".join(SITE_KINDS))
    return kind


def check_expected_output(value: object) -> int | None:
    """Return an output length to predict with [tokens], or None for a request's own.

    Raises:
        InputError: it is neither a whole number of at least 1 nor None.
    """
    if value is not None and (type(value) is not int or value < 1):
        raise InputError("router.expected_output", value, "a whole number of at least 1 token, or null")
    return value


def least_outstanding(pools: Sequence[PoolView]) -> PoolView | None:
    """The pool with the fewest unfinished requests a replica, the first of equals; None if there is no pool."""
    best, lowest = None, math.inf
    for pool in pools:
        load = pool.outstanding / pool.replicas
        if load < lowest:
            best, lowest = pool, load
    return best


def replica_at(pools: Sequence[PoolView], index: int) -> PoolView:
    """The pool of the `index`-th replica, counting replicas from 0 through `pools`."""
    for pool in pools:
        index -= pool.replicas
        if index < 0:
            return pool
    raise IndexError("index past the last replica")

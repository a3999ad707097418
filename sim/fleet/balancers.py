"""How a pool spreads requests over its replicas: plain functions of the pool that name one."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop
from typing import TYPE_CHECKING

from sim.errors import InputError
from sim.fleet.spec import Pool

if TYPE_CHECKING:
    from sim.fleet.pool import LivePool


def round_robin(pool: LivePool) -> int:
    """Each replica in turn."""
    pool.turn = (pool.turn + 1) % pool.replicas
    return pool.turn


def uniform(pool: LivePool) -> int:
    """Any replica with equal probability."""
    return int(pool.rng.random() * pool.replicas)


def least_loaded(pool: LivePool) -> int:
    """The replica with the least load, the first of equals. O(log n): every change of load pushes an entry."""
    order, loads = pool.order, pool.loads
    while True:
        load, replica = order[0]
        if loads[replica] == load:
            return replica
        heappop(order)


def power_of_two(pool: LivePool) -> int:
    """The less loaded of two replicas drawn at random."""
    draw = pool.rng.random
    first, second = int(draw() * pool.replicas), int(draw() * pool.replicas)
    return second if pool.loads[second] < pool.loads[first] else first


#: How a pool may spread requests over its replicas. Load is requests, or prompt + output tokens for `least_tokens`.
BALANCERS: dict[str, Callable[[LivePool], int]] = {
    "round_robin": round_robin,
    "random": uniform,
    "least_outstanding": least_loaded,
    "least_tokens": least_loaded,
    "power_of_two": power_of_two,
}


def balancer_of(pool: Pool, router: object) -> str:
    """The balancer of a pool: its own, else the router's wish, else least outstanding.

    Raises:
        InputError: there is no such balancer.
    """
    name = pool.balancer or getattr(router, "balancer", None) or "least_outstanding"
    if name not in BALANCERS:
        raise InputError(f"pools.{pool.name}.balancer", name, " | ".join(BALANCERS))
    return str(name)

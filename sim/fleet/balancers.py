"""How a pool spreads requests over its replicas: plain functions of the pool that name one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from heapq import heappop
from itertools import islice
from typing import TYPE_CHECKING

from sim.errors import InputError
from sim.fleet.api import ApiPool
from sim.fleet.engine_settings import EngineSettings
from sim.fleet.spec import Pool
from sim.request import Request

if TYPE_CHECKING:
    from sim.fleet.replicas import ReplicaPool


def round_robin(pool: ReplicaPool, request: Request) -> int:
    """Each replica in turn."""
    pool.turn = (pool.turn + 1) % pool.replicas
    return pool.turn


def uniform(pool: ReplicaPool, request: Request) -> int:
    """Any replica with equal probability."""
    return int(pool.rng.random() * pool.replicas)


def least_loaded(pool: ReplicaPool, request: Request) -> int:
    """The replica with the least load, the first of equals. O(log n): every change of load pushes an entry."""
    order, loads = pool.order, pool.loads
    while True:
        load, replica = order[0]
        if loads[replica] == load:
            return replica
        heappop(order)


def power_of_two(pool: ReplicaPool, request: Request) -> int:
    """The less loaded of two replicas drawn at random."""
    draw = pool.rng.random
    first, second = int(draw() * pool.replicas), int(draw() * pool.replicas)
    return second if pool.loads[second] < pool.loads[first] else first


def prefix_affinity(pool: ReplicaPool, request: Request) -> int:
    """A replica that holds most of the prompt's prefix, unless it has more work ahead than that saves.

    Work is counted in tokens: a replica's load, and the tokens of the prompt that it would have to compute.

    Source: after Mooncake, arXiv 2407.00079, algorithm 1, without transfers of KV between replicas.
    """
    idle = least_loaded(pool, request)
    tokens, holders = pool.prefix_holders(request)
    if not holders or idle in holders:
        return idle
    best = _least_of(pool, holders)
    return best if pool.loads[best] - tokens <= pool.loads[idle] else idle


def adapter_affinity(pool: ReplicaPool, request: Request) -> int:
    """A replica that has the request's adapter loaded, unless others are less loaded by more than `ADAPTER_SLACK`."""
    idle = least_loaded(pool, request)
    holders = pool.adapter_holders(request.traits.adapter)
    if not holders or idle in holders:
        return idle
    best = _least_of(pool, holders)
    return best if pool.loads[best] <= pool.loads[idle] + ADAPTER_SLACK else idle


def _least_of(pool: ReplicaPool, holders: Iterable[int]) -> int:
    """The least loaded of the first `_COMPARED` replicas of these."""
    return min(islice(holders, _COMPARED), key=pool.loads.__getitem__)


#: requests that a replica with the adapter may have more than the least loaded one [assumed]
ADAPTER_SLACK = 4
_COMPARED = 16  # replicas compared, so that a prefix or adapter that all hold costs no more

#: balancers whose load is prompt + output tokens; that of the others is requests
BY_TOKENS = ("least_tokens", "prefix_affinity")
#: balancers that ask for the least loaded replica
ORDERED = ("least_outstanding", "least_tokens", "prefix_affinity", "adapter_affinity")

#: How a pool may spread requests over its replicas.
BALANCERS: dict[str, Callable[[ReplicaPool, Request], int]] = {
    "round_robin": round_robin,
    "random": uniform,
    "least_outstanding": least_loaded,
    "least_tokens": least_loaded,
    "power_of_two": power_of_two,
    "prefix_affinity": prefix_affinity,
    "adapter_affinity": adapter_affinity,
}


def balancer_of(pool: Pool | ApiPool, router: object) -> str:
    """The balancer of a pool: its own, else the router's wish, else least outstanding.

    Raises:
        InputError: there is no such balancer.
    """
    name = pool.balancer or getattr(router, "balancer", None) or "least_outstanding"
    if name not in BALANCERS:
        raise InputError(f"pools.{pool.name}.balancer", name, " | ".join(BALANCERS))
    return str(name)


def scheduled(pool: Pool, router: object) -> Pool:
    """A pool whose engines take requests in the order that the router wants, unless it names one of its own."""
    order = getattr(router, "scheduler", None)
    if order is None or pool.engine.scheduler != EngineSettings().scheduler:
        return pool
    return replace(pool, engine=replace(pool.engine, scheduler=order))

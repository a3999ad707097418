"""Spot capacity: when the provider takes it away, drawn from a stream of the pool's own name."""

from __future__ import annotations

import math
from dataclasses import replace

from sim.accounting.cost import Rent
from sim.errors import InputError
from sim.fleet.api import ApiPool
from sim.fleet.spec import Pool
from sim.rng import Streams
from sim.units import SECONDS_PER_HOUR


def interrupted(pool: Pool | ApiPool, streams: Streams, until_s: float) -> Pool | ApiPool:
    """The pool with the interruptions of its spot price as outages: a Poisson process while it is in service.

    Args:
        pool: any; others than spot pools come back as they are.
        streams: of the run.
        until_s: none begins later [s].

    Raises:
        InputError: the run has no horizon, or the pool outages of its own.
    """
    cost = pool.cost
    if isinstance(pool, ApiPool) or not isinstance(cost, Rent) or not cost.interruptions_per_hour:
        return pool
    key = f"pools.{pool.name}"
    if math.isinf(until_s):
        accepted = "0, or a run with horizon_s, up to which interruptions are drawn"
        raise InputError(f"{key}.cost.interruptions_per_hour", cost.interruptions_per_hour, accepted)
    if pool.outages:
        raise InputError(f"{key}.outages", pool.outages, "none beside cost.interruptions_per_hour")
    draw = streams.get(f"spot {pool.name}").exponential
    mean_s, spans = SECONDS_PER_HOUR / cost.interruptions_per_hour, []
    start = float(draw(mean_s))
    while start < until_s:
        spans.append((start, start + cost.restart_s))
        start += cost.restart_s + float(draw(mean_s))
    return replace(pool, outages=tuple(spans))

"""Tells a router that learns what became of the requests it sent."""

from __future__ import annotations

import math
from typing import Any

from sim.accounting.purchased import is_api
from sim.fleet.pool import Done, LivePool
from sim.routing.base import Outcome
from sim.serving.sequence import Sequence


def telling(router: object, done: Done) -> Done:
    """Return `done`, followed by the router's `completed` where it has one; others cost nothing."""
    completed: Any = getattr(router, "completed", None)
    if completed is None:
        return done

    def both(pool: LivePool, replica: int, seq: Sequence) -> None:
        done(pool, replica, seq)
        if seq.status == 0:  # not cancelled, nor failed
            leg = seq.request.leg
            completed(seq.request if leg is None else leg.client, pool, outcome(pool, seq))

    return both


def outcome(pool: LivePool, seq: Sequence) -> Outcome:
    """What became of a request that has its last token."""
    request, share = seq.request, seq.prefill + seq.decode + seq.waste
    sent_s = request.arrival_s - (pool.link.downlink_s(request) if pool.link is not None else 0.0)
    ttft_s, e2e_s = seq.first_s - sent_s, seq.last_s - sent_s
    tpot_s = (e2e_s - ttft_s) / (seq.target - 1) if seq.target > 1 else 0.0
    if is_api(pool):
        facility_j = pool.facility_j(seq)
    elif math.isnan(pool.pue):  # it varies: the engine kept the product
        facility_j = (seq.prefill_g + seq.decode_g + seq.waste_g).imag
    else:
        active_w = pool.timing.static_w + pool.host_w
        facility_j = pool.pue * (active_w * share.real + share.imag) + pool.overhead_w * share.real
    return Outcome(ttft_s, tpot_s, e2e_s, facility_j)

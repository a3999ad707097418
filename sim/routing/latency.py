"""Routers that compare predicted latency."""

from __future__ import annotations

import math

from sim.request import Request
from sim.routing.base import FleetView, PoolView
from sim.routing.candidates import Candidates, check_expected_output


class MinPredictedLatency:
    """Sends a request where its predicted latency, network and queue included, is lowest; the first of equals.

    Args:
        expected_output: output length to predict with [tokens], as an operator who cannot know it would; None uses
            the request's own, which makes the router an oracle.
    """

    balancer = "least_outstanding"

    def __init__(self, expected_output: int | None = None) -> None:
        self._expected_output = check_expected_output(expected_output)

    def bind(self, fleet: FleetView) -> None:
        """Consider every pool."""
        self._candidates = Candidates(fleet.pools)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool with the lowest predicted latency."""
        output = request.output if self._expected_output is None else self._expected_output
        best, lowest = None, math.inf
        for pool in self._candidates.holding(request):
            latency = pool.predicted_latency_s(request.prompt, output)
            if best is None or latency < lowest:
                best, lowest = pool, latency
        return best

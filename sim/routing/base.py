"""The one-method protocol of a router, and what it may see."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from sim.quality import Answers
from sim.request import Request


class PoolView(Protocol):
    """What a router may read of a pool, as of now. Reading wakes nobody.

    Attributes:
        name, site_name, site_kind: who and where it is (kind: device | edge | cloud).
        replicas: engines in the pool.
        outstanding: requests sent there and not finished.
        outstanding_tokens: their prompt + output tokens.
        waiting: requests queued there for a place in a batch.
        kv_use: share of KV blocks in use, in [0, 1].
        max_tokens: longest prompt + output that the pool can hold [tokens].
        model_id, xpu_id: what it serves, on what.
        served_quality: scores of the model by benchmark, as served; those that are unknown are absent.
    """

    name: str
    site_name: str
    site_kind: str
    replicas: int
    outstanding: int
    outstanding_tokens: int
    max_tokens: int
    model_id: str
    xpu_id: str

    @property
    def served_quality(self) -> Mapping[str, float]: ...

    @property
    def waiting(self) -> int: ...

    @property
    def kv_use(self) -> float: ...

    def predicted_latency_s(self, prompt: int, output: int) -> float:
        """Estimated E2E latency of a request sent there now, network and queue included [s]."""
        ...


class FleetView(Protocol):
    """What a router may read of the fleet.

    Attributes:
        pools: every pool, in the order of the configuration.
        rng: the routing stream; the only source of randomness a router may use.
        now: simulated time [s].
        quality: whether models answer a request correctly, and what routers and verifiers guess of it.
    """

    @property
    def pools(self) -> Sequence[PoolView]: ...

    @property
    def rng(self) -> random.Random: ...

    @property
    def now(self) -> float: ...

    @property
    def quality(self) -> Answers: ...


class Router(Protocol):
    """Sends each request to one pool.

    A router may have an attribute `balancer`, the way its pools spread requests over their replicas unless a pool says
    otherwise (see `sim.fleet.balancers.BALANCERS`), and a method `bind(fleet)`, called once before the first request:
    the place to check that the pools it needs are there.
    """

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool that serves `request`, or None to reject it."""
        ...

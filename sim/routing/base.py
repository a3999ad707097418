"""The one-method protocol of a router, and what it may see."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from sim.accounting.forecast import Forecast, ForecastModel
from sim.fleet.estimates import Times, Work
from sim.journey import Journey, Steps
from sim.qoe import SLOClass
from sim.quality import Answers
from sim.request import Request


class PoolView(Protocol):
    """What a router may read of a pool, as of now. Reading wakes nobody.

    Attributes:
        name, site_name, site_kind: who and where it is (kind: device | edge | cloud).
        replicas: engines in the pool: replicas, or data-parallel ranks.
        outstanding: requests sent there and not finished.
        outstanding_tokens, output_tokens: their prompt + output tokens, and their output tokens alone.
        waiting: requests queued there for a place in a batch.
        kv_use: share of KV blocks in use, in [0, 1].
        up: whether it is in service.
        max_tokens: longest prompt + output that the pool can hold [tokens].
        adapter_slots: adapters that a replica can have loaded; 0 serves the base model to all.
        model_id, xpu_id: what it serves, on what; an API's xPU is empty.
        kv_format, kv_bytes_per_token: number format of its KV cache, and the size of a token's [bytes]; NaN of an API.
        served_quality: scores of the model by benchmark, as served; those that are unknown are absent.
        power_w: facility power drawn now, from mean loads [W].
    """

    name: str
    site_name: str
    site_kind: str
    replicas: int
    outstanding: int
    outstanding_tokens: int
    output_tokens: int
    max_tokens: int
    adapter_slots: int
    up: bool
    model_id: str
    xpu_id: str
    kv_format: str
    kv_bytes_per_token: float

    @property
    def served_quality(self) -> Mapping[str, float]: ...

    @property
    def waiting(self) -> int: ...

    @property
    def kv_use(self) -> float: ...

    def kv_exceeds(self, share: float) -> bool:
        """Whether `kv_use` is above a share; cheaper than reading it, for it asks replicas in doubt alone."""
        ...

    @property
    def power_w(self) -> float: ...

    def prefix_tokens(self, request: Request) -> int:
        """Tokens of a prompt that its best replica need not compute; `balancer` prefix_affinity sends it there."""
        ...

    def adapter_holders(self, adapter: int) -> Mapping[int, int]:
        """The replicas (as keys) that have an adapter loaded."""
        ...

    def predicted_latency_s(self, prompt: int, output: int) -> float:
        """Estimated E2E latency of a request sent there now, network and queue included [s]."""
        ...

    def times(self, prompt: int, output: int, cached: int = 0) -> Times:
        """Estimated TTFT, TPOT and E2E latency of a request sent there now; `cached` prompt tokens are computed."""
        ...

    def work(self, prompt: int, output: int, cached: int = 0, batch: int | None = None) -> Work:
        """Estimated share of time, energy, cost and embodied carbon, in a batch of `batch`; None is the present one."""
        ...

    def full_batch(self, prompt: int, output: int, tpot_s: float) -> int:
        """Most requests of these lengths that a replica can decode at once at no more than `tpot_s` a token [s]."""
        ...


class Outcome(NamedTuple):
    """What became of a request that completed, told to routers that learn.

    Attributes:
        ttft_s, tpot_s, e2e_s: as its client saw them, but for the way out of a server that detokenizes [s]; the TPOT of
            a request of one token is 0.
        energy_j: facility energy of its share of steps [J].
    """

    ttft_s: float
    tpot_s: float
    e2e_s: float
    energy_j: float


class FleetView(Protocol):
    """What a router may read of the fleet.

    Attributes:
        pools: every pool, in the order of the configuration.
        rng: the routing stream; the only source of randomness a router may use.
        now: simulated time [s].
        seed: root seed of the run, for what must not depend on the order of events (`sim.draws`).
        quality: whether models answer a request correctly, and what routers and verifiers guess of it.
        slo_classes: what the classes of requests expect; `request.slo_class` is an index.
    """

    @property
    def pools(self) -> Sequence[PoolView]: ...

    @property
    def rng(self) -> random.Random: ...

    @property
    def now(self) -> float: ...

    @property
    def seed(self) -> int: ...

    @property
    def quality(self) -> Answers: ...

    @property
    def slo_classes(self) -> Sequence[SLOClass]: ...

    def linked(self, one: str, other: str) -> bool:
        """Whether two places (sites, or ``client``) are one, or a link joins them."""
        ...

    def forecasts(self, model: ForecastModel) -> list[Forecast]:
        """Forecasts of carbon intensity by `model`, one a pool in their order. There is no way to the realised one."""
        ...


class Router(Protocol):
    """Sends each request to one pool.

    A router may have an attribute `balancer`, the way its pools spread requests over their replicas unless a pool says
    otherwise (see `sim.fleet.balancers.BALANCERS`), and a method `bind(fleet)`, called once before the first request:
    the place to check that the pools it needs are there. One that learns has a method
    `completed(request, pool, outcome)`, called for every request that completed, with its `Outcome`.
    """

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool that serves `request`, or None to reject it."""
        ...


class Policy(Protocol):
    """Does more than choose a pool: a generator over the steps of a request's journey.

    What it yields, it waits for: `fleet.serve(pool)`, `fleet.wait(seconds)`, `fleet.transfer(nbytes, source, target)`,
    `fleet.race(...)`, `fleet.gather(...)`, or a SimPy event. What it returns, the client gets: a leg, an `Answer`, or
    an ending such as ``"rejected"``. `balancer` and `bind(fleet)` as a router's. One
    that holds other routers or policies names them in an attribute `parts`. See docs/policies.md.
    """

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Lead `request` to its answer."""
        ...

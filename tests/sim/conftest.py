"""Small fleets and workloads for whole-run tests: every cost visible, every number simple to compute by hand.

`cases` composes them at random for the tests of invariants.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from simpy import Environment

from sim import Constant, EngineSettings, Fleet, Host, Link, Owned, Pool, Rent, Result, Site, SLOClass, run
from sim.accounting.embodied import Embodied
from sim.accounting.grid import HourlySignal
from sim.fleet.network import LiveLink
from sim.fleet.replicas import ReplicaPool
from sim.hardware.model import Model
from sim.hardware.xpu import XPU, PowerCoefficients, TimingCoefficients
from sim.request import Request
from sim.rng import Streams
from sim.routing import (
    CloudOnly,
    DeviceOnly,
    EdgeOnly,
    LeastOutstanding,
    LeastTokens,
    LengthThreshold,
    MinPredictedLatency,
    PowerOfTwo,
    Random,
    RoundRobin,
    Spillover,
)
from sim.routing.base import FleetView, PoolView, Router
from sim.workload.base import RequestBatch

CHAT = SLOClass("chat", ttft_s=0.5, tpot_s=0.05, expected_ttft_s=0.2, digest_tokens_per_s=20.0)
VOICE = SLOClass("voice", ttft_s=0.1, e2e_s=1.0, expected_ttft_s=0.05, digest_tokens_per_s=200.0)

MODEL = Model(
    "toy", "toy/toy", layers=4, hidden=64, heads=4, kv_heads=2, head_dim=16, vocab=1000, params=1e6, params_active=1e6,
    embedding_params=64_000.0, max_context=100_000,
)  # fmt: skip
WINDOWED = Model(
    "toy-window", "toy/window", layers=4, hidden=64, heads=4, kv_heads=2, head_dim=16, vocab=1000, params=1e6,
    params_active=1e6, embedding_params=64_000.0, max_context=100_000, window=24, window_layers=2,
)  # fmt: skip


def xpu(
    speed: float = 1.0,
    *,
    tdp_w: float = 300.0,
    skew: tuple[tuple[float, float], ...] = (),
    timing: dict[str, Any] | None = None,
    power: dict[str, float] | None = None,
    **changes: Any,
) -> XPU:
    """A chip on which a decode step of the toy model takes some milliseconds and every token of context shows."""
    coefficients = {
        "compute_eff": 0.5, "weight_eff": 0.8, "kv_eff": 0.6, "attn_eff": 0.4, "step_overhead_s": 1e-3 / speed,
        "layer_overhead_s": 1e-4 / speed, "seq_overhead_s": 2e-5 / speed, "link_bytes_per_s": 1e8,
        "link_latency_s": 1e-5, "skew_decode": skew, "skew_mixed": skew,
    } | (timing or {})  # fmt: skip
    watts = {"static_w": 80.0, "compute_w": 200.0, "memory_w": 120.0} | (power or {})
    fields: dict[str, Any] = {
        "peak_flops": {"bf16": speed * 2e11, "fp16": speed * 2e11, "int8": speed * 4e11},
        "memory_bytes": 1e8, "bandwidth_bytes_per_s": speed * 5e8, "tdp_w": tdp_w, "idle_w": 40.0,
        "weight_only_formats": ("int4",),
    } | changes  # fmt: skip
    return XPU("toy", "toy", timing=TimingCoefficients(**coefficients), power=PowerCoefficients(**watts), **fields)


def embodied(kg: float = 100.0) -> Embodied:
    """Embodied carbon with an interval, over a short life so that it shows."""
    return Embodied(0.5 * kg, kg, 2.0 * kg, "board", "published", 1e6, "test")


def pool(name: str = "pool", **changes: Any) -> Pool:
    """A pool of one replica of the toy model; `engine` may be a mapping of settings."""
    engine = changes.pop("engine", {})
    settings = engine if isinstance(engine, EngineSettings) else EngineSettings(**({"kv_blocks": 200} | engine))
    fields: dict[str, Any] = {
        "model": MODEL, "xpu": xpu(), "host": Host(30.0, embodied(40.0)), "embodied": embodied(),
        "cost": Rent(3.6),
    } | changes  # fmt: skip
    return Pool(name, engine=settings, **fields)


def owned() -> Owned:
    """Ownership with a tariff, so that cost has a part per joule."""
    return Owned(20_000.0, electricity_usd_per_kwh=0.2, nameplate_kw_per_xpu=0.5, colo_usd_per_kw_month=100.0)


def fleet_of(*pools: Pool, kind: str = "cloud", **site: Any) -> Fleet:
    """One site without a link."""
    return Fleet((Site("site", kind, pools, **site),))


@dataclass
class ListWorkload:
    """Requests as (arrival [s], prompt, output[, SLO class]), a few a batch so that batches are crossed."""

    rows: Sequence[tuple[Any, ...]]
    slo_classes: tuple[SLOClass, ...] = (CHAT,)
    batch: int = 7

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        for start in range(0, len(self.rows), self.batch):
            part = [(*row, 0)[:4] for row in self.rows[start : start + self.batch]]
            arrival, prompt, output, slo = zip(*part)
            yield RequestBatch(
                np.array(arrival, dtype=np.float64), *(np.array(each, dtype=np.int64) for each in (prompt, output, slo))
            )

    def expected_requests(self) -> float | None:
        return float(len(self.rows))


@cache
def _edges(period: float, last: float) -> list[float]:
    return [i * period for i in range(math.ceil(last / period))]


class StepSignal:
    """Intensity that changes every `period` seconds; slow and obvious."""

    basis, source = "lca", "test"

    def __init__(self, period: float, values: Sequence[float], last: float = 2e4) -> None:
        self.edges = _edges(period, last)
        self.values = values

    def at(self, t_s: float) -> float:
        return self.values[(bisect_right(self.edges, t_s) - 1) % len(self.values)]

    def next_change(self, t_s: float) -> float:
        return self.edges[bisect_right(self.edges, t_s)]

    def integral(self, t0_s: float, t1_s: float) -> float:
        total, t = 0.0, t0_s
        while t < t1_s:
            end = min(t1_s, self.next_change(t))
            total += self.at(t) * (end - t)
            t = end
        return total


@dataclass
class First:
    """Sends everything to the first pool, whatever its length."""

    balancer: str | None = None

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        return fleet.pools[0]


@dataclass
class Spy:
    """Another router, and a view of the live pools for the tests; counts what arrived."""

    router: Router
    pools: list[ReplicaPool] = field(default_factory=list)
    arrived: int = 0

    def __post_init__(self) -> None:
        self.balancer = getattr(self.router, "balancer", None)

    def bind(self, fleet: Any) -> None:
        self.pools = fleet.pools
        bind = getattr(self.router, "bind", None)
        if bind is not None:
            bind(fleet)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        self.arrived += 1
        return self.router.choose(request, fleet)


def simulate(fleet: Fleet, rows: Sequence[tuple[Any, ...]], router: Router | None = None, **settings: Any) -> Result:
    """Run rows of a `ListWorkload` on a fleet, by default on its first pool."""
    classes = settings.pop("slo_classes", (CHAT,))
    return run(fleet, ListWorkload(rows, classes), router or First(), **settings)


def live_pool(
    spec: Pool,
    balancer: str = "least_outstanding",
    env: Environment | None = None,
    link: LiveLink | None = None,
    prefix_unit: int = 0,
) -> ReplicaPool:
    """A live pool by itself, with no observer."""
    site = Site("site", "cloud", (spec,), Constant(100.0))
    live = ReplicaPool(
        env or Environment(), 0, spec, site, link, random.Random(1), balancer, (CHAT,), math.inf, prefix_unit
    )
    live.done = lambda pool, replica, seq: None
    return live


KINDS = {1: ("cloud",), 2: ("edge", "cloud"), 3: ("device", "edge", "cloud")}
ROUTERS: list[tuple[int, Callable[[], Any]]] = [  # the sites a router needs
    (1, CloudOnly), (1, RoundRobin), (1, Random), (1, LeastOutstanding), (1, LeastTokens), (1, PowerOfTwo),
    (1, MinPredictedLatency), (1, lambda: MinPredictedLatency(8)), (2, EdgeOnly), (2, Spillover),
    (2, lambda: Spillover(waiting_per_replica=1.0, kv_watermark=0.5, outstanding_per_replica=3.0)),
    (2, lambda: LengthThreshold(20, 15)), (3, DeviceOnly),
]  # fmt: skip


class Case:
    """One random run, and what came of it."""

    def __init__(self, fleet: Fleet, rows: list[tuple[float, int, int, int]], settings: dict[str, Any], spy: Spy):
        self.fleet, self.rows, self.settings, self.spy = fleet, rows, settings, spy
        self._result: Result | None = None

    def __repr__(self) -> str:
        pools = [
            (each.name, each.replicas, each.tp, each.model.id, each.engine, each.boot_s, each.balancer)
            for each in self.fleet.pools
        ]
        return f"{self.spy.router} {pools} {self.fleet.links} {self.rows} {self.settings}"

    @property
    def result(self) -> Result:
        if self._result is None:
            self._result = simulate(self.fleet, self.rows, self.spy, **self.settings)
        return self._result

    @property
    def drained(self) -> bool:
        return bool(self.settings["drain"])


@st.composite
def pools(draw: st.DrawFn, name: str) -> Any:
    block = draw(st.sampled_from([1, 4, 16]))
    seqs = draw(st.integers(1, 8))
    speed = draw(st.sampled_from([1.0, 0.4]))
    return pool(
        name,
        model=draw(st.sampled_from([MODEL, WINDOWED])),
        xpu=xpu(speed, tdp_w=draw(st.sampled_from([300.0, 130.0])), skew=draw(st.sampled_from([(), ((1, 0.3),)]))),
        replicas=draw(st.sampled_from([1, 1, 1, 2, 4])),
        tp=draw(st.sampled_from([1, 2])),
        engine={
            "block_size": block,
            "kv_blocks": max(2, draw(st.integers(60, 150)) // block + 1),
            "max_num_seqs": seqs,
            "max_num_batched_tokens": draw(st.integers(seqs, 64)),
            "async_scheduling": draw(st.booleans()),
            "scheduler": draw(st.sampled_from(["fcfs", "fcfs", "priority", "sjf", "edf", "vtc"])),
            "batching": draw(st.sampled_from(["chunked", "chunked", "whole", "static"])),
            "swap_bytes": draw(st.sampled_from([0.0, 1e6])),
            "adapter_slots": draw(st.sampled_from([0, 0, 2])),
            "padding": draw(st.sampled_from([(), (4, 16, 64)])),
            "front_end_s": draw(st.sampled_from([0.0, 0.0, 0.01])),
            "tokenize_s": draw(st.sampled_from([0.0, 0.0, 0.004])),
            "tokenize_s_per_token": draw(st.sampled_from([0.0, 0.0, 2e-4])),
            "front_end_workers": draw(st.integers(1, 2)),
            "detokenize_s": draw(st.sampled_from([0.0, 0.0, 1e-4, 2e-3])),
        },
        boot_s=draw(st.sampled_from([0.0, 0.0, 0.25])),
        host=draw(st.sampled_from([None, Host(30.0, embodied(40.0)), Host(30.0)])),
        cost=draw(st.sampled_from([None, Rent(3.6), owned()])),
        balancer=draw(st.sampled_from([None, "round_robin", "random", "least_tokens", "power_of_two"])),
    )


@st.composite
def signals(draw: st.DrawFn) -> Any:
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return Constant(250.0, "lca")
    if kind == 1:
        return StepSignal(draw(st.sampled_from([0.013, 0.11, 0.7])), [100.0, 0.0, 350.0])
    first = datetime(2024, 1, 1, tzinfo=UTC)
    return HourlySignal([120.0, 480.0, 30.0], first, "2024-01-01T00:59:59", "lca", wrap=True)


@st.composite
def links(draw: st.DrawFn, site: str) -> Link:
    return Link(
        f"link {site}",
        "client",
        site,
        latency_s=draw(st.sampled_from([0.0, 0.03])),
        latency_sigma=draw(st.sampled_from([0.0, 0.6])),
        up_bytes_per_s=draw(st.sampled_from([np.inf, 4e3])),
        down_bytes_per_s=draw(st.sampled_from([np.inf, 1e5])),
        shared=draw(st.booleans()),
        energy_j_per_byte=draw(st.sampled_from([None, 1e-3])),
        outages=draw(st.sampled_from([(), ((0.05, 0.2),), ((0.0, 0.03), (0.1, 0.11), (0.15, 0.7))])),
    )


@st.composite
def cases(draw: st.DrawFn, drain: bool | None = None) -> Case:
    kinds = KINDS[draw(st.integers(1, 3))]
    sites = [
        Site(
            kind, kind, [draw(pools(f"{kind} {i}")) for i in range(draw(st.integers(1, 2)))],
            intensity=draw(signals()), pue=draw(st.sampled_from([1.0, 1.4])),
        )
        for kind in kinds
    ]  # fmt: skip
    linked = [draw(links(kind)) for kind in kinds if draw(st.booleans())]
    gap = draw(st.sampled_from([0.0, 0.001, 0.01, 0.05]))
    lengths = st.tuples(st.floats(0.0, 1.0), st.integers(1, 60), st.integers(1, 40), st.integers(0, 1))
    drawn = draw(st.lists(lengths, min_size=1, max_size=40))
    arrivals = np.cumsum([row[0] * gap for row in drawn]).tolist()
    drain = draw(st.booleans()) if drain is None else drain
    return Case(
        Fleet(sites, linked),
        [(arrival, *row[1:]) for arrival, row in zip(arrivals, drawn)],
        {
            "seed": draw(st.integers(0, 3)),
            "warmup_s": draw(st.sampled_from([0.0, 0.05])),
            "horizon_s": draw(st.sampled_from([0.1, 0.4, 1.5] + [None] * drain)),
            "drain": drain,
            "oversize": "reject",
            "keep_spans": True,
            "timeline_bin_s": draw(st.sampled_from([None, 0.07])),
            "slo_classes": (CHAT, VOICE),
        },
        Spy(draw(st.sampled_from([make for sites, make in ROUTERS if sites <= len(kinds)]))()),
    )

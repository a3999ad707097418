"""One benchmark case in a process of its own, for its own peak memory: `python -m tests.benchmarks.cases NAME`.

Prints one JSON record. Every case accounts in full: energy, carbon (ACT), cost, timeline.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import simpy

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("HYBRIDFLEET_DATA", ROOT.parent / "shared" / "data"))
TRACE = DATA / "bench" / "trace_10000.csv"
COLUMNS = {"arrival": "arrived_at", "prompt": "num_prefill_tokens", "output": "num_decode_tokens"}
RATE = 32.0  #: total load of the cases on many replicas: 4 requests/s for each of 8 [1/s]


def simpy_rate(processes: int, timeouts: int) -> float:
    """SimPy's own speed on this machine: timeouts per second of processes that wait for random times."""
    env = simpy.Environment()
    draw = random.Random(1).random

    def wait() -> Any:
        for _ in range(timeouts):
            yield env.timeout(draw())

    for _ in range(processes):
        env.process(wait())
    start = time.perf_counter()
    env.run()
    return processes * timeouts / (time.perf_counter() - start)


def fleet(replicas: int) -> Any:
    """Llama-3.1-8B in BF16 on H100s with chunks of 512 tokens, rented, embodied carbon by ACT."""
    from sim import Constant, EngineSettings, Fleet, Pool, Rent, Site, act_of
    from sim.hardware import catalogue

    h100 = catalogue.xpu("h100_sxm")
    pool = Pool(
        "h100",
        catalogue.model("llama_3_1_8b"),
        h100,
        replicas=replicas,
        engine=EngineSettings(max_num_batched_tokens=512),
        cost=Rent(2.69),
        embodied=act_of(h100),
    )
    return Fleet((Site("cloud", "cloud", (pool,), Constant(400.0, "lca", "constant"), pue=1.2),))


def common_trace() -> Any:
    """The 10,000 requests that every simulator was given, or as many of the same kind where the file is not at hand."""
    from sim.workload import TraceWorkload

    if TRACE.exists():
        return TraceWorkload(str(TRACE), format="csv", columns=COLUMNS, time_unit="s")
    return synthetic(10_000, 4.0)


class Longer:
    """Lengths of another model, outputs `factor` times as long."""

    def __init__(self, lengths: Any, factor: int) -> None:
        self.lengths, self.factor = lengths, factor

    def sample(self, rng: Any, n: int) -> tuple[Any, Any]:
        prompt, output = self.lengths.sample(rng, n)
        return prompt, output * self.factor


def synthetic(requests: int, rate: float, factor: int = 1) -> Any:
    """Poisson arrivals with the embedded lengths of the Azure conversation trace, outputs `factor` times as long."""
    import yaml

    from scenarios.targets import instantiate
    from sim.workload import Poisson, SyntheticWorkload

    entry = yaml.safe_load((ROOT / "conf" / "workload" / "lengths" / "azure_conv_2023.yaml").read_text())
    return SyntheticWorkload(Poisson(rate), Longer(instantiate(entry["lengths"], "lengths"), factor), limit=requests)


def simulate(replicas: int, workload: Any) -> dict[str, float]:
    """Run one workload in the library; `wall_s` is all of `run`: loop, accounting and tables."""
    from sim import run
    from sim.routing import LeastOutstanding

    start = time.perf_counter()
    result = run(fleet(replicas), workload, LeastOutstanding(), seed=1)
    wall = time.perf_counter() - start
    return {"requests": len(result), "wall_s": wall}


def edge_and_cloud() -> Any:
    """Sixteen L4s with Llama-3.2-3B at the edge, six H100s with Llama-3.1-8B in the cloud, on links that are shared."""
    from sim import EngineSettings, Fleet, Link, Pool, Rent, Site, act_of
    from sim.hardware import catalogue

    (cloud,), l4 = fleet(6).sites, catalogue.xpu("l4")
    edge = Pool(
        "l4",
        catalogue.model("llama_3_2_3b"),
        l4,
        replicas=16,
        engine=EngineSettings(max_num_batched_tokens=512),
        cost=Rent(0.8),
        embodied=act_of(l4),
    )
    links = [
        Link(name, "client", name, latency_s, 0.3, capacity, capacity, shared=True, energy_j_per_byte=1e-5)
        for name, latency_s, capacity in (("edge", 0.01, 1.25e7), ("cloud", 0.03, 1.25e8))
    ]
    return Fleet((Site("edge", "edge", (edge,), cloud.intensity, pue=1.3), cloud), tuple(links))


def cascade(requests: int) -> dict[str, float]:
    """A cascade, of which a third of the requests go on to the cloud; `wall_s` is the CPU time of all of `run`."""
    from sim import run
    from sim.quality import QualityModel
    from sim.routing import Cascade, CloudOnly, EdgeOnly

    made, workload = edge_and_cloud(), synthetic(requests, RATE)
    start = time.process_time()
    result = run(made, workload, Cascade([EdgeOnly(), CloudOnly()]), seed=1, quality=QualityModel("mmlu"))
    return {"requests": len(result), "wall_s": time.process_time() - start}


class Timed:
    """A router, and the CPU time that its decisions took [s]."""

    def __init__(self, router: Any) -> None:
        self.router, self.balancer, self.wall_s = router, router.balancer, 0.0
        self.bind = router.bind

    def choose(self, request: Any, fleet: Any) -> Any:
        """Ask the router, and look at the clock before and after."""
        start = time.process_time()
        pool = self.router.choose(request, fleet)
        self.wall_s += time.process_time() - start
        return pool


def decisions(name: str, requests: int = 20_000, **settings: Any) -> dict[str, float]:
    """Routing decisions on 1,000 replicas at 20 sites, half of them edge sites; `wall_s` is their CPU time alone."""
    from dataclasses import replace

    from sim import Fleet, Site, routing, run

    (site,) = fleet(50).sites
    sites = [
        Site(f"{kind} {i}", kind, (replace(site.pools[0], name=f"{kind} {i}"),), site.intensity, site.pue)
        for kind in ("edge", "cloud")
        for i in range(10)
    ]
    router = Timed(getattr(routing, name)(**settings))
    result = run(Fleet(sites), synthetic(requests, 8_000.0), router, seed=1)
    return {"requests": len(result), "wall_s": router.wall_s}


def whole_command() -> dict[str, float]:
    """`hybridfleet run` from the shell on the common trace: imports, configuration, run, tables, summary."""
    with tempfile.TemporaryDirectory() as folder:
        trace = TRACE
        if not trace.exists():
            trace = Path(folder) / "trace.csv"
            _write_trace(trace)
        command = [
            sys.executable, "-m", "scenarios.run", "workload=csv_trace", f"workload.path={trace}",
            *(f"workload.columns.{key}={value}" for key, value in COLUMNS.items()),
            "fleet=single", "fleet.engine.max_num_batched_tokens=512", "figures=false", "report=false",
            f"out={folder}/run", "progress=none",
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        return {"requests": 10_000, "wall_s": time.perf_counter() - start}


def _write_trace(path: Path) -> None:
    from sim.rng import Streams

    with path.open("w") as file:
        file.write(",".join(COLUMNS.values()) + "\n")
        for batch in synthetic(10_000, 4.0).batches(Streams(1)):
            for row in zip(batch.arrival_s, batch.prompt_tokens, batch.output_tokens):
                file.write("{},{},{}\n".format(*row))


def results(figures: bool, requests: int = 20_000) -> dict[str, float]:
    """What tables and summary (or figures) add to a run."""
    from analysis.figures import write_figures
    from analysis.metrics import summarize
    from scenarios.store import write_run
    from sim import run
    from sim.routing import LeastOutstanding

    result = run(fleet(2), synthetic(requests, 8.0), LeastOutstanding(), seed=1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        if figures:
            write_figures(result, Path(folder))
        else:
            write_run(Path(folder) / "run", result, {}, figures=False, report=False)
            summarize(result)
        return {"requests": len(result), "wall_s": time.perf_counter() - start}


CASES = {
    "common_trace": lambda: simulate(1, common_trace()),
    "whole_command": whole_command,
    "million": lambda: simulate(8, synthetic(1_000_000, RATE)),
    "outputs_x10": lambda: simulate(8, synthetic(10_000, RATE / 10.0, 10)),
    "replicas_8": lambda: simulate(8, synthetic(10_000, RATE)),
    "replicas_100": lambda: simulate(100, synthetic(10_000, RATE)),
    "replicas_1000": lambda: simulate(1000, synthetic(10_000, RATE)),
    "cascade": lambda: cascade(10_000),
    "cascade_million": lambda: cascade(1_000_000),
    "decide_least_outstanding": lambda: decisions("LeastOutstanding"),
    "decide_least_tokens": lambda: decisions("LeastTokens"),
    "decide_power_of_two": lambda: decisions("PowerOfTwo"),
    "decide_spillover": lambda: decisions("Spillover"),
    "decide_weighted_load": lambda: decisions("Weighted", weights={"load": 1.0, "queue": 1.0, "memory": 1.0}),
    "decide_min_predicted_latency": lambda: decisions("MinPredictedLatency"),
    "decide_min_cost_slo": lambda: decisions("MinCostSLO"),
    "results": lambda: results(figures=False),
    "figures": lambda: results(figures=True),
}


def record(name: str) -> dict[str, Any]:
    """Run a case and describe it. The SimPy rate is taken right before and after, and averaged."""
    before = simpy_rate(10_000, 20)
    measured = CASES[name]()
    who = resource.RUSAGE_CHILDREN if name == "whole_command" else resource.RUSAGE_SELF
    memory_mb = resource.getrusage(who).ru_maxrss / 1024.0
    return {
        "name": name,
        "requests": int(measured["requests"]),
        "wall_s": measured["wall_s"],
        "requests_per_s": measured["requests"] / measured["wall_s"],
        "peak_rss_mb": memory_mb,
        "simpy_timeouts_per_s": 0.5 * (before + simpy_rate(10_000, 20)),
    }


if __name__ == "__main__":
    print(json.dumps(record(sys.argv[1])))

"""Clusters whose machines do both phases or one each, and the highest rate at which they keep bounds on slowdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scenarios.deployment import pool_of
from scenarios.entries import Catalogue
from scenarios.studies.capacity import Load, around
from sim.fleet.leg import COMPLETED
from sim.fleet.link import Link
from sim.fleet.spec import Fleet, Pool, Site
from sim.results import Columns
from sim.routing import LeastOutstanding, PrefillDecodeSplit
from sim.simulation import run
from sim.workload.arrivals import Poisson
from sim.workload.synthetic import SyntheticWorkload

PROMPT, TOKEN = "prompt", "token"
_ALONE_PER_S = 1e-4  #: arrivals so rare that no request meets another [1/s]
METRICS = {"ttft": "ttft_s", "tbt": "tpot_s", "e2e": "e2e_s"}


@dataclass(frozen=True, slots=True)
class Machines:
    """So many machines of one kind; `cap` is the share of the xPU's power limit that they may draw."""

    xpu: str
    count: int
    cap: float = 1.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """Machines for prompts and for tokens; without the former the latter do both."""

    token: Machines
    prompt: Machines | None = None

    @property
    def parts(self) -> tuple[Machines, ...]:
        """All machines, by kind of work."""
        return (self.token,) if self.prompt is None else (self.prompt, self.token)

    @property
    def words(self) -> str:
        """``3 + 5`` prompt and token machines, or ``8``."""
        return " + ".join(str(part.count) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Slowdowns:
    """Bounds on times over those of the same request alone on the reference machine: by metric, at percentiles."""

    percentiles: Sequence[float]
    bounds: Mapping[str, Sequence[float]]

    def scaled(self, factor: float) -> Slowdowns:
        """The same with all bounds times a factor."""
        return replace(self, bounds={key: [bound * factor for bound in each] for key, each in self.bounds.items()})


@dataclass(frozen=True, slots=True)
class Bench:
    """What all clusters are measured with.

    Attributes:
        stated: keys of a pool that all machines share (`scenarios.deployment.pool_of`).
        kv_link: id of what KV caches move over.
        load: what comes.
        reference: xPU of the machine that slowdowns refer to.
        slowdowns: what must hold.
        resolution: share to which rates are searched.
        search: further folders of entries.
    """

    stated: Mapping[str, Any]
    kv_link: str
    load: Load
    reference: str
    slowdowns: Slowdowns
    resolution: float
    search: tuple[Path, ...]

    def alone(self) -> Columns:
        """Each request by itself on one reference machine."""
        return self.serve(Cluster(Machines(self.reference, 1)), _ALONE_PER_S)

    def check(self, cluster: Cluster) -> None:
        """Build a cluster, so that inputs that cannot be used are found before anything runs."""
        self._fleet(cluster)

    def serve(self, cluster: Cluster, rate: float) -> Columns:
        """All requests of a run at a rate [1/s]."""
        fleet, router = self._fleet(cluster)
        workload = SyntheticWorkload(Poisson(rate), self.load.lengths, limit=self.load.requests)
        return run(fleet, workload, router, seed=self.load.seed).requests

    def holds(self, cluster: Cluster, rate: float, alone: Columns) -> bool:
        """Whether a run keeps all bounds; all requests must be served, those after the warm-up count."""
        column = self.serve(cluster, rate)
        if (column["status"] != COMPLETED).any():
            return False
        counts = np.arange(len(column["status"])) >= self.load.warm * self.load.requests
        for key, bounds in self.slowdowns.bounds.items():
            ratio = (column[METRICS[key]] / alone[METRICS[key]])[counts]
            if (np.nanpercentile(ratio, self.slowdowns.percentiles) > np.asarray(bounds)).any():
                return False
        return True

    def best(self, clusters: Sequence[Cluster], guess: float) -> tuple[Cluster, float]:
        """The cluster that keeps the bounds at the highest rate, and that rate [1/s].

        A cluster is searched only if it holds a little more than the best one so far.

        Args:
            clusters: at least one.
            guess: a rate to begin with [1/s].
        """
        alone, found, most = self.alone(), clusters[0], 0.0
        for cluster in clusters:
            if most and not self.holds(cluster, most * (1.0 + self.resolution), alone):
                continue
            start = most * (1.0 + self.resolution) if most else guess
            rate = around(lambda rate, c=cluster: self.holds(c, rate, alone), start, self.resolution)  # type: ignore[misc]
            if rate > most:
                found, most = cluster, rate
        return found, most

    def _fleet(self, cluster: Cluster) -> tuple[Fleet, Any]:
        prompt, token = cluster.prompt, cluster.token
        if prompt is None:
            return Fleet((Site(TOKEN, "cloud", (self._pool(TOKEN, token),)),)), LeastOutstanding()
        if (prompt.xpu, prompt.cap) == (token.xpu, token.cap):
            both = replace(token, count=prompt.count + token.count)
            pool = self._pool(TOKEN, both, {"prefill_replicas": prompt.count, "kv_link": self.kv_link})
            return Fleet((Site(TOKEN, "cloud", (pool,)),)), LeastOutstanding()
        made = Catalogue(self.search).interconnect(self.kv_link, "kv_link")
        assert made is not None
        rate, latency = made.bytes_per_s, made.latency_s
        link = Link("kv", PROMPT, TOKEN, latency, up_bytes_per_s=rate, down_bytes_per_s=rate)  # a way for each copy
        sites = (
            Site(PROMPT, "cloud", (self._pool(PROMPT, prompt),)),
            Site(TOKEN, "cloud", (self._pool(TOKEN, token),)),
        )
        return Fleet(sites, (link,)), PrefillDecodeSplit(PROMPT, TOKEN)

    def _pool(self, name: str, machines: Machines, more: Mapping[str, Any] | None = None) -> Pool:
        values = {**self.stated, "xpu": machines.xpu, "replicas": machines.count, **(more or {})}
        pool = pool_of(values, {}, self.search)
        cap = None if machines.cap >= 1.0 else machines.cap * pool.xpu.tdp_w
        if cap is not None:
            catalogue = Catalogue(self.search)
            pool = replace(pool, power_cap_w=cap, clock_law=catalogue.clock_law("dvfs", "clock_law"))
        return replace(pool, name=name)

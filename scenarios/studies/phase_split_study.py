"""Clusters of machines for prompts and for tokens: the designs that are compared, and the best of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scenarios.entries import Catalogue
from scenarios.schema import COUNT, POSITIVE, Section, integer, list_of, number, text
from scenarios.size_inputs import scenario_file
from scenarios.studies.capacity import Load, side_by_side
from scenarios.studies.phase_clusters import METRICS, Bench, Cluster, Machines, Slowdowns
from scenarios.targets import instantiate
from sim.errors import InputError

POWER, COST = "equal power", "equal cost"
BASE_OLD, BASE_NEW = "old, both phases", "new, both phases"
OLD_OLD, NEW_NEW, NEW_OLD, NEW_CAP = "old + old", "new + new", "new + old", "new + capped"
PAIRS = ((OLD_OLD, BASE_OLD), (NEW_NEW, BASE_NEW))


@dataclass(frozen=True, slots=True)
class Kind:
    """A machine: its xPU, and what one takes at most [W] and costs [USD/h]."""

    xpu: str
    watts: float
    usd: float


@dataclass(frozen=True, slots=True)
class Best:
    """A design: the cluster that serves most within its budget, its rate [1/s], power [W] and cost [USD/h]."""

    cluster: Cluster
    rate: float
    watts: float
    usd: float


@dataclass(frozen=True, slots=True)
class Study:
    """A preset, read.

    Attributes:
        title, benches: what is simulated, by workload.
        old, new: the machines; count: of new ones, whose power and cost are the budgets.
        shares: of a budget's machines that compute prompts, which are tried.
        cap: share of its power limit that a capped machine may draw.
        published: gains by name; within: how far off still counts as the same, as a share.
        varied: input, value and bench of each, of the first workload.
        processes: side by side.
    """

    title: str
    benches: Mapping[str, Bench]
    old: Kind
    new: Kind
    count: int
    shares: Sequence[float]
    cap: float
    published: Mapping[str, float]
    within: float
    varied: Sequence[tuple[str, str, Bench]]
    processes: int

    def designs(self, budget: str) -> dict[str, list[Cluster]]:
        """Clusters of each design that use up a budget, by the shares of machines for prompts."""
        old, new = self.old, self.new
        whole, price = self.count * _price(new, budget), _price(old, budget)
        olds = int(whole / price + 1e-9)

        def beside(n: int) -> int:
            return int((self.count - n) * _price(new, budget) / price + 1e-9)

        designs = {
            BASE_OLD: [Cluster(Machines(old.xpu, olds))],
            BASE_NEW: [Cluster(Machines(new.xpu, self.count))],
            OLD_OLD: [_split(old.xpu, n, old.xpu, olds - n) for n in self._prompts(olds)],
            NEW_NEW: [_split(new.xpu, n, new.xpu, self.count - n) for n in self._prompts(self.count)],
            NEW_OLD: [_split(new.xpu, n, old.xpu, beside(n)) for n in self._prompts(self.count)],
        }
        if budget == POWER:
            designs[NEW_CAP] = [
                _split(new.xpu, n, new.xpu, int((self.count - n) / self.cap + 1e-9), self.cap)
                for n in self._prompts(self.count)
            ]
        return designs

    def _prompts(self, machines: int) -> list[int]:
        return list(dict.fromkeys(min(machines - 1, max(1, round(share * machines))) for share in self.shares))

    def best(self, cluster: Cluster, rate: float) -> Best:
        """A cluster with its rate and what it takes."""
        kinds = {kind.xpu: kind for kind in (self.old, self.new)}
        watts = sum(part.count * kinds[part.xpu].watts * part.cap for part in cluster.parts)
        return Best(cluster, rate, watts, sum(part.count * kinds[part.xpu].usd for part in cluster.parts))


@dataclass(frozen=True, slots=True)
class Found:
    """The best of each (workload, budget, design); capped: of each workload, the rate of the best new + new with its
    token machines capped; varied: gains of `PAIRS` with each input varied."""

    best: Mapping[tuple[str, str, str], Best]
    capped: Mapping[str, tuple[Cluster, float]]
    varied: Sequence[tuple[str, str, tuple[float, float]]]


def explore(study: Study) -> Found:
    """The best cluster of every design, then the inputs that are varied."""
    guess = float(study.count)
    keys = [(name, budget, design, tuple(clusters)) for name in study.benches for budget in (POWER, COST)
            for design, clusters in study.designs(budget).items()]  # fmt: skip
    asked = list(dict.fromkeys((name, clusters) for name, _, _, clusters in keys))  # some are the same in both budgets
    designs = study.designs(POWER)
    pairs = [designs[design] for pair in PAIRS for design in pair]
    tasks = [(study.benches[name], clusters, guess) for name, clusters in asked]
    tasks += [(bench, clusters, guess) for _, _, bench in study.varied for clusters in pairs]
    results = side_by_side(_best, tasks, study.processes)
    by_asked = dict(zip(asked, results))
    best = {key[:3]: study.best(*by_asked[key[0], key[3]]) for key in keys}
    capped = {}
    for name, bench in study.benches.items():
        cluster = best[name, POWER, NEW_NEW].cluster
        cluster = replace(cluster, token=replace(cluster.token, cap=study.cap))
        capped[name] = _best((bench, [cluster], guess))
    rates = [rate for _, rate in results[len(asked) :]]
    gains = [(_gain(rates, 4 * i), _gain(rates, 4 * i + 2)) for i in range(len(study.varied))]
    return Found(best, capped, [(name, value, gain) for (name, value, _), gain in zip(study.varied, gains)])


def _gain(rates: Sequence[float], at: int) -> float:
    return rates[at] / rates[at + 1] if rates[at + 1] else float("nan")


def _best(task: tuple[Bench, Sequence[Cluster], float]) -> tuple[Cluster, float]:
    bench, clusters, guess = task
    return bench.best(clusters, guess)


def _split(prompt: str, prompts: int, token: str, tokens: int, cap: float = 1.0) -> Cluster:
    return Cluster(Machines(token, tokens, cap), Machines(prompt, prompts))


def _price(kind: Kind, budget: str) -> float:
    return kind.watts if budget == POWER else kind.usd


def read(preset: Section, search: tuple[Path, ...]) -> Study:
    """The preset as objects."""
    preset.need("program", text)
    tp = preset.need("tp", COUNT)
    kinds = [_kind(preset.need(key, text), key, tp, search) for key in ("old", "new")]
    engine = {key: preset.need(key, COUNT) for key in ("max_num_seqs", "max_num_batched_tokens", "max_model_len")}
    stated = {key: preset.need(key, text) for key in ("model", "precision", "stack")} | {"tp": tp, "engine": engine}
    requests, warm = preset.need("requests", COUNT), preset.need("warm", number("a share in [0, 1)", 0.0, high=0.99))
    seed, resolution = (
        preset.need("seed", integer()),
        preset.need("resolution", number("a share in (0, 1)", above=0.0, high=0.999)),
    )
    link, slowdowns = preset.need("kv_link", text), _slowdowns(preset.child("slowdowns"))
    benches = {}
    for name in preset.need("workloads", list_of(text)):
        lengths = scenario_file("workload/lengths", name, "workloads", search)["lengths"]
        load = Load(instantiate(lengths, "workloads"), requests, warm, seed)
        benches[name] = Bench(stated, link, load, kinds[0].xpu, slowdowns, resolution, search)
    if not benches:
        raise InputError("workloads", [], "a list of at least one id")
    published = preset.child("published")
    known = {key: published.need(key, POSITIVE) for key in ("equal_both", "throughput", "cost")}
    published.finish()
    uncertain = preset.child("uncertain")
    first = next(iter(benches.values()))
    study = Study(
        preset.need("title", text),
        benches,
        kinds[0],
        kinds[1],
        preset.need("machines", integer(2)),
        _shares(preset),
        preset.need("cap", number("a share in (0, 1)", above=0.0, high=0.999)),
        known,
        preset.need("within", number("a share in (0, 1)", above=0.0, high=0.999)),
        list(_varied(uncertain, first)),
        preset.need("processes", COUNT),
    )
    for bench in [*benches.values(), *(bench for _, _, bench in study.varied)]:
        for clusters in study.designs(POWER).values():
            bench.check(clusters[0])
    return study


def _shares(preset: Section) -> list[float]:
    shares = preset.need("prompt_shares", list_of(number("a share in (0, 1)", above=0.0, high=0.999)))
    if not shares:
        raise InputError("prompt_shares", shares, "a list of at least one share")
    return shares


def _kind(name: str, key: str, tp: int, search: tuple[Path, ...]) -> Kind:
    xpu, entry = Catalogue(search).xpu(name, key)
    usd = entry.values.get("rent_usd_per_hour")
    if usd is None:
        raise InputError(key, name, "an xPU with a rent")
    return Kind(xpu.id, xpu.tdp_w * tp, usd * tp)


def _slowdowns(section: Section) -> Slowdowns:
    percentiles = section.need("percentiles", list_of(number("a percentile in [0, 100]", low=0.0, high=100.0)))
    bounds = {}
    for key in METRICS:
        bounds[key] = section.need(key, list_of(POSITIVE))
        if len(bounds[key]) != len(percentiles):
            raise InputError(section.path(key), bounds[key], f"{len(percentiles)} numbers, one a percentile")
    section.finish()
    return Slowdowns(percentiles, bounds)


def _varied(section: Section, base: Bench) -> Iterator[tuple[str, str, Bench]]:
    """Each value of each input that the preset calls uncertain."""
    for value in section.get("max_num_batched_tokens", list_of(COUNT), ()):
        engine = {**base.stated["engine"], "max_num_batched_tokens": value}
        yield "tokens a step", str(value), replace(base, stated={**base.stated, "engine": engine})
    for name in section.get("stack", list_of(text), ()):
        yield "stack", name, replace(base, stated={**base.stated, "stack": name})
    for name in section.get("kv_link", list_of(text), ()):
        yield "KV over", name, replace(base, kv_link=name)
    for factor in section.get("slowdowns", list_of(POSITIVE), ()):
        yield "bounds, times", f"{factor:g}", replace(base, slowdowns=base.slowdowns.scaled(factor))
    for seed in section.get("seed", list_of(integer()), ()):
        yield "seed", str(seed), replace(base, load=replace(base.load, seed=seed))
    section.finish()

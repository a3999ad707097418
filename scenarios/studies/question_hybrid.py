"""An edge beside the cloud or the cloud alone: which emits less, by rate, grids, and what is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from analysis.study import FAILS, HOLDS, PARTLY, UNTESTED, Cell, Chart, Claim, Table
from scenarios.build_site import intensity_of
from scenarios.entries import Catalogue
from scenarios.schema import POSITIVE, Section, integer, list_of, number, text
from scenarios.studies.capacity import side_by_side
from scenarios.studies.question_common import Answer, Common
from scenarios.studies.scenario_runs import PoolTook, Scenario, Seen, observe
from scenarios.studies.varied import Ways
from scenarios.trials import Trial
from sim.errors import InputError

CLOUD = "cloud_only"
BOUNDARIES = {"whole": True, "work": False}
_RATE = number("a rate > 0 requests/s", above=0.0)
#: Carbon of a pool [g], from the pool, the intensity where it is, and whether all of its time counts.
Grams = Callable[[PoolTook, float, bool], float]


@dataclass(frozen=True, slots=True)
class Sized:
    """The fewest replicas in the cloud with which enough requests meet the SLO, and the run with them."""

    replicas: int
    run: Seen


@dataclass(frozen=True, slots=True)
class Hybrid:
    """The question, read.

    Attributes:
        rates: of requests [1/s]; requests: of a run; slo: what they expect.
        routers: of the hybrid fleet.
        grids: intensity at the edge and in the cloud by name [g/kWh].
        most: replicas in the cloud at most; attainment: share of requests that must meet the SLO.
        varied: by input, its low and high end.
        common: shared by all questions.
    """

    rates: list[float]
    requests: int
    slo: str
    routers: list[str]
    grids: Mapping[str, tuple[float, float]]
    most: int
    attainment: float
    varied: Mapping[str, tuple[float, float]]
    common: Common

    def answer(self) -> Answer:
        """Size each fleet at each rate, and compare carbon on all grids."""
        base = ["workload=poisson", f"slo={self.slo}", f"workload.limit={self.requests}", "workload.duration_s=null"]
        made = {CLOUD: Scenario(CLOUD, ["fleet=cloud", *base], self.common.search)}
        made |= {
            name: Scenario(name, ["fleet=hybrid", f"router={name}", *base], self.common.search) for name in self.routers
        }
        cases = [*product(made, self.rates)]
        tasks = [([self._trial(made[name], rate, n + 1) for n in range(self.most)], self.attainment)
                 for name, rate in cases]  # fmt: skip
        found = dict(zip(cases, side_by_side(fewest, tasks, self.common.processes)))
        ratios = self._ratios(found, _as_found)
        tables = [self._runs(found), self._table(ratios)]
        if self.varied:
            tables.append(self._moved(found, ratios))
        return Answer([self._less(ratios), self._idle(ratios), self._cleaner(ratios)], tables, [self._chart(ratios)])

    def _trial(self, scenario: Scenario, rate: float, replicas: int) -> Trial:
        key = "fleet.sites.cloud.pools.cloud.replicas"
        return scenario.trial({"workload.rate": rate, "seed": self.common.seed, key: replicas})

    def _ratios(
        self, found: Mapping[tuple[str, float], Sized | None], grams: Grams
    ) -> dict[tuple[str, float, str, str], float]:
        """Carbon a request of the hybrid over that of the cloud alone, by router, rate, boundary and grids."""
        ratios = {}
        for router, rate, (boundary, whole), (pair, grid) in product(
            self.routers, self.rates, BOUNDARIES.items(), self.grids.items()
        ):
            hybrid, cloud = found[router, rate], found[CLOUD, rate]
            if hybrid is not None and cloud is not None:
                ratios[router, rate, boundary, pair] = _a_request(hybrid.run, grid, whole, grams) / _a_request(
                    cloud.run, grid, whole, grams
                )
        return ratios

    def _runs(self, found: Mapping[tuple[str, float], Sized | None]) -> Table:
        columns = ("fleet", "rate [1/s]", "cloud replicas", "SLO met [%]", "p99 TTFT [s]", "Wh / 1,000, whole",
                   "USD / 1,000, whole")  # fmt: skip
        rows: list[list[Cell]] = []
        for (name, rate), sized in found.items():
            row: list[Cell] = [name if name == CLOUD else f"hybrid, {name}", rate]
            if sized is None:
                rows.append([*row, None, None, None, None, None])
                continue
            keys = ("ttft_p99_s", "wh_per_1000_requests", "usd_per_1000_requests")
            attained = 100.0 * sized.run.known("slo_attainment")
            rows.append([*row, sized.replicas, attained, *(sized.run.known(key) for key in keys)])
        caption = f"Fewest replicas in the cloud with {self.attainment:.0%} of requests within {self.slo}"
        return Table("hybrid_runs", f"{caption} (– where {self.most} are too few)", columns, rows)

    def _table(self, ratios: Mapping[tuple[str, float, str, str], float]) -> Table:
        rows: list[list[Cell]] = [
            [router, rate, boundary, *(ratios.get((router, rate, boundary, pair)) for pair in self.grids)]
            for router, rate, boundary in product(self.routers, self.rates, BOUNDARIES)
        ]
        caption = "Carbon of a request, hybrid over cloud alone, by grids (edge / cloud); below 1 the hybrid emits less"
        return Table("hybrid", caption, ("router", "rate [1/s]", "counted", *self.grids), rows)

    def _moved(
        self, found: Mapping[tuple[str, float], Sized | None], base: Mapping[tuple[str, float, str, str], float]
    ) -> Table:
        """Each input at both ends: how far ratios move, and how many of them pass 1."""
        rows: list[list[Cell]] = []
        for name, ends in self.varied.items():
            most, turns = 0.0, 0
            for end in ends:
                now = self._ratios(found, _CHANGED[name](end))
                most = max([most, *(abs(now[key] / base[key] - 1.0) for key in base)])
                turns += sum((now[key] < 1.0) != (base[key] < 1.0) for key in base)
            rows.append([name, f"{ends[0]:g}", f"{ends[1]:g}", 100.0 * most, turns, 2 * len(base)])
        rows.sort(key=lambda row: -float(row[3] or 0.0))
        columns = ("input", "low", "high", "most [%]", "turns", "of cases")
        return Table(
            "hybrid_varied", "One input at a time: how the ratios move, and how often 1 is passed", columns, rows
        )

    def _less(self, ratios: Mapping[tuple[str, float, str, str], float]) -> Claim:
        words = []
        for boundary in BOUNDARIES:
            own = [ratio for (_, _, each, _), ratio in ratios.items() if each == boundary]
            words.append(f"{boundary}: in {sum(ratio < 1.0 for ratio in own)} of {len(own)} cases")
        agree = sum(ratio < 1.0 for ratio in ratios.values())
        return Claim(
            "A hybrid fleet emits less than the cloud alone", _verdict(agree, len(ratios)), "; ".join(words) + "."
        )

    def _idle(self, ratios: Mapping[tuple[str, float, str, str], float]) -> Claim:
        """Somewhere the answer is another one when idle hardware counts."""
        keys = list(dict.fromkeys((router, rate, pair) for router, rate, _, pair in ratios))
        whole, alone = BOUNDARIES
        turned = [(r, x, p) for r, x, p in keys if (ratios[r, x, whole, p] < 1.0) != (ratios[r, x, alone, p] < 1.0)]
        verdict = UNTESTED if not keys else HOLDS if turned else FAILS
        words = "; ".join(f"{router} at {rate:g}/s on {pair}" for router, rate, pair in turned[:4])
        evidence = f"In {len(turned)} of {len(keys)} cases" + (
            f": {words}{', ...' * (len(turned) > 4)}." if turned else "."
        )
        return Claim("Whether idle hardware counts can turn the answer", verdict, evidence)

    def _cleaner(self, ratios: Mapping[tuple[str, float, str, str], float]) -> Claim:
        """The hybrid wins where, and only where, the edge's grid is the cleaner one."""
        cases = {key: (ratio < 1.0, self.grids[key[3]][0] < self.grids[key[3]][1]) for key, ratio in ratios.items()}
        agree = sum(won == cleaner for won, cleaner in cases.values())
        words = []
        for cleaner, name in ((True, "cleaner"), (False, "no cleaner")):
            own = [won for won, each in cases.values() if each == cleaner]
            words.append(f"{sum(own)} of {len(own)} cases where it is {name}")
        evidence = f"It wins in {' and '.join(words)}."
        verdict = _verdict(agree, len(cases))
        return Claim("The hybrid wins where the grid of the edge is the cleaner one, and only there", verdict, evidence)

    def _chart(self, ratios: Mapping[tuple[str, float, str, str], float]) -> Chart:
        panels = {
            f"{router}, {boundary}": {pair: _line(ratios, router, boundary, pair, self.rates) for pair in self.grids}
            for router, boundary in product(self.routers, BOUNDARIES)
        }
        caption = (
            "Carbon of a request, hybrid over cloud alone, by grids (edge / cloud); below 1 the hybrid emits less."
        )
        return Chart("hybrid", caption, "lines", "Requests/s", "CO2e, hybrid over cloud", panels, log="xy", level=1.0)


def fewest(task: tuple[Sequence[Trial], float]) -> Sized | None:
    """The first of the trials, by rising replicas, that meets the SLO for the share asked for; None if none does."""
    trials, attainment = task
    for index, trial in enumerate(trials):
        run = observe(trial)
        if run.known("slo_attainment") >= attainment:
            return Sized(index + 1, run)
    return None


def _a_request(run: Seen, grid: tuple[float, float], whole: bool, grams: Grams) -> float:
    edge, cloud = grid
    total = sum(grams(pool, edge if pool.kind == "edge" else cloud, whole) for pool in run.pools.values())
    return total / run.completed


def _as_found(pool: PoolTook, g_per_kwh: float, whole: bool) -> float:
    return pool.grams(g_per_kwh, whole)


def _at_edge(power: Callable[[PoolTook], float], making: float = 1.0) -> Grams:
    def grams(pool: PoolTook, g_per_kwh: float, whole: bool) -> float:
        if pool.kind != "edge":
            return pool.grams(g_per_kwh, whole)
        return pool.grams(g_per_kwh, whole, power(pool), making)

    return grams


#: Inputs that can be varied after the runs: how carbon is counted at an end.
_CHANGED: dict[str, Callable[[float], Grams]] = {
    "edge_pue": lambda x: _at_edge(lambda pool: x / pool.pue),
    "edge_power": lambda x: _at_edge(lambda pool: x),
    "edge_embodied": lambda x: _at_edge(lambda pool: 1.0, x),
}


def _line(
    ratios: Mapping[tuple[str, float, str, str], float], router: str, boundary: str, pair: str, rates: Sequence[float]
) -> tuple[list[float], list[float]]:
    kept = [rate for rate in rates if (router, rate, boundary, pair) in ratios]
    return kept, [ratios[router, rate, boundary, pair] for rate in kept]


def read(section: Section, common: Common) -> Hybrid:
    """The question from its section."""
    varied = section.child("uncertain")
    ways = Ways[float](varied)
    for name in _CHANGED:
        ways.vary(name, POSITIVE, float)
    varied.finish()
    made = Hybrid(
        sorted(section.need("rates", list_of(_RATE))),
        section.need("requests", integer(50)),
        section.need("slo", text),
        section.need("routers", list_of(text)),
        dict(_pairs(section, common)),
        section.need("most_replicas", integer(1)),
        section.need("attainment", number("a share in (0, 1]", above=0.0, high=1.0)),
        {way.name: way.setups for way in ways.found},
        common,
    )
    section.finish()
    return made


def _pairs(section: Section, common: Common) -> Iterator[tuple[str, tuple[float, float]]]:
    catalogue = Catalogue(common.search)
    for index, pair in enumerate(section.need("grids", list_of(list_of(text)))):
        if len(pair) != 2:
            raise InputError(f"{section.path('grids')}[{index}]", pair, "[grid of the edge, grid of the cloud]")
        edge, cloud = (intensity_of(Section({"grid": g}, ""), catalogue, "lca", None).at(0.0) for g in pair)
        yield " / ".join(name.removeprefix("study_") for name in pair), (edge, cloud)


def _verdict(agree: int, cases: int) -> str:
    return UNTESTED if not cases else HOLDS if agree == cases else PARTLY if agree else FAILS

"""Cost against QoE: one replica at rising rates; fuller engines are cheaper and slower."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise, product

from analysis.study import FAILS, HOLDS, PARTLY, UNTESTED, Cell, Chart, Claim, Table
from scenarios.schema import SHARE, Section, integer, list_of, number, text
from scenarios.studies.question_common import Answer, Common
from scenarios.studies.scenario_runs import Scenario, Seen, observe_all
from sim.errors import InputError

_RATE = number("a rate > 0 requests/s", above=0.0)


@dataclass(frozen=True, slots=True)
class CostOfQoe:
    """The question, read: rates by xPU, SLOs by strictness, and the share of requests that must meet them."""

    model: str
    rates: Mapping[str, list[float]]
    slos: list[str]
    requests: int
    attainment: float
    noise: float
    common: Common

    def answer(self) -> Answer:
        """Run every rate under every SLO."""
        cases = list(product(self.slos, ((xpu, rate) for xpu, rates in self.rates.items() for rate in rates)))
        made = {slo: self._scenario(slo) for slo in self.slos}
        trials = [
            made[slo].trial({"fleet.xpu": xpu, "workload.rate": rate, "seed": self.common.seed})
            for slo, (xpu, rate) in cases
        ]
        seen = dict(zip(cases, observe_all(trials, self.common.processes)))
        columns = (
            "xpu",
            "rate [1/s]",
            "USD / 1,000",
            "token QoE",
            "p99 TTFT [s]",
            *(f"{slo} [%]" for slo in self.slos),
        )
        rows: list[list[Cell]] = []
        for xpu, rates in self.rates.items():
            for rate in rates:
                first = seen[self.slos[0], (xpu, rate)]
                keys = ("usd_per_1000_requests", "token_qoe", "ttft_p99_s")
                met = (100.0 * seen[slo, (xpu, rate)].known("slo_attainment") for slo in self.slos)
                rows.append([xpu, rate, *(first.known(key) for key in keys), *met])
        lines = {f"{xpu}, {slo}": self._line(seen, slo, xpu) for slo, xpu in product(self.slos, self.rates)}
        chart = Chart(
            "qoe", f"Cost of 1,000 requests against the share within the SLO, {self.model}, a replica at rising rates.",
            "lines", "USD / 1,000 requests", "SLO attainment", {self.model: lines}, log="x",
        )  # fmt: skip
        caption = f"One replica of {self.model} at rising rates: what 1,000 requests cost, and who met which SLO"
        table = Table("qoe", caption, columns, rows)
        return Answer([self._tradeoff(seen), self._strict(seen)], [table], [chart])

    def _scenario(self, slo: str) -> Scenario:
        overrides = ["fleet=single", f"fleet.model={self.model}", "workload=poisson", f"slo={slo}"]
        overrides += [f"workload.limit={self.requests}", "workload.duration_s=null"]
        return Scenario(slo, overrides, self.common.search)

    def _line(
        self, seen: Mapping[tuple[str, tuple[str, float]], Seen], slo: str, xpu: str
    ) -> tuple[list[float], list[float]]:
        runs = [seen[slo, (xpu, rate)] for rate in self.rates[xpu]]
        return [r.known("usd_per_1000_requests") for r in runs], [r.known("slo_attainment") for r in runs]

    def _tradeoff(self, seen: Mapping[tuple[str, tuple[str, float]], Seen]) -> Claim:
        """From each rate to the next lower one, a request costs more and QoE is no worse."""
        agree, cases, better = 0, 0, 0
        for slo, xpu in product(self.slos, self.rates):
            runs = [seen[slo, (xpu, rate)] for rate in self.rates[xpu]]
            for full, spare in pairwise(reversed(runs)):
                gain = spare.known("token_qoe") - full.known("token_qoe")
                dearer = spare.known("usd_per_1000_requests") > full.known("usd_per_1000_requests")
                cases, agree = cases + 1, agree + (dearer and gain >= -self.noise)
                better += gain > self.noise
        verdict = UNTESTED if not cases else HOLDS if agree == cases else PARTLY if agree else FAILS
        evidence = (
            f"Emptier engines cost more a request and are no worse (token QoE, to {self.noise:g}) in {agree} of "
            f"{cases} steps of the rate; they are better in {better}, the others pay for nothing."
        )
        return Claim("Better QoE costs more", verdict, evidence)

    def _strict(self, seen: Mapping[tuple[str, tuple[str, float]], Seen]) -> Claim:
        """The cheapest rate that meets a stricter SLO is dearer."""
        words, agree, cases = [], 0, 0
        for xpu in self.rates:
            prices = [self._cheapest(seen, slo, xpu) for slo in self.slos]
            for (loose, one), (strict, other) in pairwise(zip(self.slos, prices)):
                if not math.isfinite(one):
                    continue
                cases, agree = cases + 1, agree + (other > one)
                price = f"{other / one:.2f} times the dollars" if math.isfinite(other) else "at no rate"
                words.append(f"{xpu}: {strict} over {loose} {price}")
        verdict = UNTESTED if not cases else HOLDS if agree == cases else PARTLY if agree else FAILS
        evidence = f"Cheapest rate with {self.attainment:.0%} of requests within the SLO: {'; '.join(words)}."
        return Claim("A stricter SLO costs more", verdict, evidence)

    def _cheapest(self, seen: Mapping[tuple[str, tuple[str, float]], Seen], slo: str, xpu: str) -> float:
        runs = [seen[slo, (xpu, rate)] for rate in self.rates[xpu]]
        held = [r.known("usd_per_1000_requests") for r in runs if r.known("slo_attainment") >= self.attainment]
        return min(held, default=math.inf)


def read(section: Section, common: Common) -> CostOfQoe:
    """The question from its section."""
    rates = {xpu: _rising(f"{section.path('rates')}.{xpu}", values) for xpu, values in
             section.child("rates").values.items()}  # fmt: skip
    made = CostOfQoe(
        section.need("model", text),
        rates,
        _slos(section),
        section.need("requests", integer(50)),
        section.need("attainment", SHARE),
        section.need("noise", number("a share >= 0", low=0.0)),
        common,
    )
    section.finish()
    return made


def _rising(key: str, values: object) -> list[float]:
    return sorted(list_of(_RATE)(key, values))


def _slos(section: Section) -> list[str]:
    slos = section.need("slos", list_of(text))
    if not slos:
        raise InputError(section.path("slos"), slos, "a list of at least one id, the loosest first")
    return slos

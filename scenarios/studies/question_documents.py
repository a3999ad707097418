"""Documents in the prompt or in the weights: retrieval, a tuned model, and all documents in front of every question."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from analysis.study import FAILS, HOLDS, PARTLY, UNTESTED, Cell, Chart, Claim, Table
from scenarios.schema import POSITIVE, Section, integer, list_of, one_of, text
from scenarios.size_inputs import place_of, read_inputs
from scenarios.size_training import plan_job
from scenarios.studies.question_common import Answer, Common
from scenarios.studies.scenario_runs import Scenario, Seen, observe_all
from sim.errors import InputError

RAG, TUNED, LONG = "rag", "fine_tuned", "long_context"
#: What is counted: key of the dollars of 1,000 requests by boundary.
BOUNDARIES = {"whole": "usd_per_1000_requests", "work": "usd_active_per_1000_requests"}
_OVERRIDES = {
    RAG: ["fleet=rag", "router=rag"],
    TUNED: ["fleet=cloud", "router=fine_tuned"],
    LONG: ["fleet=cloud", "router=long_context", "fleet.sites.cloud.pools.cloud.engine.prefix_caching=true"],
}
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Documents:
    """The question, read.

    Attributes:
        rates: of questions [1/s]; requests: of a run.
        job: how the model is tuned: fine_tuning | lora; tokens: of its data; model, xpu: what is tuned, on what.
        update_days: between two changes of the documents, each of which asks for tuning anew.
        chunks, varied_tokens: ends of the chunks in a prompt and of the tokens, or None.
        common: shared by all questions.
    """

    rates: list[float]
    requests: int
    job: str
    tokens: float
    model: str
    xpu: str
    update_days: list[float]
    chunks: list[int] | None
    varied_tokens: list[float] | None
    common: Common

    def answer(self) -> Answer:
        """Run all ways at all rates, and what tuning costs."""
        made = {way: Scenario(way, _overrides(way, self.requests), self.common.search) for way in _OVERRIDES}
        cases = [*product(_OVERRIDES, self.rates)]
        changes = [{"workload.rate": rate, "seed": self.common.seed} for _, rate in cases]
        trials = [made[way].trial(change) for (way, _), change in zip(cases, changes)]
        middle = self.rates[len(self.rates) // 2]
        varied = [{"workload.rate": middle, "seed": self.common.seed, "router.chunks": n} for n in self.chunks or ()]
        found = observe_all([*trials, *(made[RAG].trial(change) for change in varied)], self.common.processes)
        seen = dict(zip(cases, found))
        usd = self._tuning_usd(self.tokens)
        tables = [self._costs(seen), self._winners(seen, usd)]
        rows = self._moved(seen, found[len(cases) :], usd, middle)
        if rows:
            caption = f"Questions after which tuning has paid back ({usd:.3g} USD), at {middle:g}/s, with other inputs"
            tables.append(Table("documents_varied", caption, ("input", "value", *BOUNDARIES), rows))
        return Answer([self._dearer(seen), self._depends(seen, usd), self._long(seen)], tables, [self._chart(seen)])

    def _tuning_usd(self, tokens: float) -> float:
        """Dollars of one tuning, by `hybridfleet size`; not known: NaN."""
        inputs = read_inputs({"xpu": self.xpu, f"{self.job}.tokens": tokens}, self.common.search)
        pool, _, rates, price = place_of(self.model, inputs)
        usd = plan_job(inputs.jobs[self.job], pool, rates, price, inputs).account.usd
        return math.nan if usd is None else usd

    def _costs(self, seen: Mapping[tuple[str, float], Seen]) -> Table:
        columns = ("way", "rate [1/s]", *(f"USD, {name}" for name in BOUNDARIES), "Wh", "g CO2e", "p99 TTFT [s]",
                   "SLO met [%]", "correct [%]")  # fmt: skip
        rows: list[list[Cell]] = [
            [way, rate, *(run.known(key) for key in BOUNDARIES.values()), run.known("wh_per_1000_requests"),
             run.known("g_per_1000_requests"), run.known("ttft_p99_s"), 100.0 * run.known("slo_attainment"),
             100.0 * run.known("answer_quality")]
            for (way, rate), run in seen.items()
        ]  # fmt: skip
        return Table(
            "documents", "Of 1,000 questions; gains in correct answers are inputs, not findings", columns, rows
        )

    def _cheaper(self, seen: Mapping[tuple[str, float], Seen], usd: float) -> dict[tuple[float, str, float], str]:
        """The cheaper of retrieval and tuning by rate, boundary and days between updates."""
        cheaper = {}
        for rate, (name, key), days in product(self.rates, BOUNDARIES.items(), self.update_days):
            questions = rate * days * _DAY_S
            costs = {RAG: seen[RAG, rate].known(key) * questions / 1e3}
            costs[TUNED] = seen[TUNED, rate].known(key) * questions / 1e3 + usd
            cheaper[rate, name, days] = min(costs, key=lambda way: costs[way])
        return cheaper

    def _winners(self, seen: Mapping[tuple[str, float], Seen], usd: float) -> Table:
        cheaper = self._cheaper(seen, usd)
        rows: list[list[Cell]] = [
            [rate, name, back_after(seen[RAG, rate], seen[TUNED, rate], key, usd),
             *(cheaper[rate, name, days] for days in self.update_days)]
            for rate, (name, key) in product(self.rates, BOUNDARIES.items())
        ]  # fmt: skip
        columns = ("rate [1/s]", "counted", "paid back after", *(f"every {days:g} d" for days in self.update_days))
        caption = f"{self.job} at {usd:.3g} USD an update: questions until it has paid back, and the cheaper way"
        return Table("documents_cheaper", caption, columns, rows)

    def _moved(
        self, seen: Mapping[tuple[str, float], Seen], chunks: Sequence[Seen], usd: float, rate: float
    ) -> list[list[Cell]]:
        tuned, rag = seen[TUNED, rate], seen[RAG, rate]
        rows: list[list[Cell]] = []
        for n, run in zip(self.chunks or (), chunks):
            rows.append(["chunks", str(n), *(back_after(run, tuned, key, usd) for key in BOUNDARIES.values())])
        for tokens in self.varied_tokens or ():
            price = self._tuning_usd(tokens)
            cells = (back_after(rag, tuned, key, price) for key in BOUNDARIES.values())
            rows.append(["tokens of tuning", f"{tokens:g}", *cells])
        return rows

    def _dearer(self, seen: Mapping[tuple[str, float], Seen]) -> Claim:
        ratios = {
            (rate, name): seen[RAG, rate].known(key) / seen[TUNED, rate].known(key)
            for rate, (name, key) in product(self.rates, BOUNDARIES.items())
        }
        agree = sum(ratio > 1.0 for ratio in ratios.values())
        verdict = _verdict(agree, len(ratios))
        evidence = f"{agree} of {len(ratios)} cases; {min(ratios.values()):.2f} to {max(ratios.values()):.2f} times."
        return Claim("A question costs more with retrieval than of a tuned model", verdict, evidence)

    def _depends(self, seen: Mapping[tuple[str, float], Seen], usd: float) -> Claim:
        """Both ways win somewhere, and no case goes back to retrieval as updates become rarer."""
        cheaper = self._cheaper(seen, usd)
        wins = {way: sum(each == way for each in cheaper.values()) for way in (RAG, TUNED)}
        verdict = HOLDS if all(wins.values()) else FAILS
        evidence = f"Retrieval is the cheaper one in {wins[RAG]}, tuning in {wins[TUNED]} of {len(cheaper)} cases."
        return Claim("How often documents change decides which is cheaper", verdict, evidence)

    def _long(self, seen: Mapping[tuple[str, float], Seen]) -> Claim:
        keys = [*product(self.rates, BOUNDARIES.values())]
        agree = sum(seen[LONG, rate].known(key) > seen[RAG, rate].known(key) for rate, key in keys)
        slow = sum(seen[LONG, rate].known("slo_attainment") < 0.9 for rate in self.rates)
        evidence = f"Dearer than retrieval in {agree} of {len(keys)} cases; below 90 % of the SLO at {slow} rates."
        return Claim("All documents in the prompt cost the most", _verdict(agree, len(keys)), evidence)

    def _chart(self, seen: Mapping[tuple[str, float], Seen]) -> Chart:
        panels = {
            name: {way: (self.rates, [seen[way, rate].known(key) for rate in self.rates]) for way in _OVERRIDES}
            for name, key in BOUNDARIES.items()
        }
        caption = "Dollars of 1,000 questions by how documents reach the model."
        return Chart("documents", caption, "lines", "Questions/s", "USD / 1,000", panels, log="xy")


def back_after(rag: Seen, tuned: Seen, key: str, usd: float) -> float:
    """Questions after which what tuning saves has paid for it; infinite where it saves nothing."""
    saved = rag.known(key) - tuned.known(key)
    return 1e3 * usd / saved if saved > 0.0 else math.inf


def read(section: Section, common: Common) -> Documents:
    """The question from its section."""
    varied = section.child("uncertain")
    chunks = varied.get("chunks", list_of(integer(1)), None)
    tokens = varied.get("tokens", list_of(POSITIVE), None)
    varied.finish()
    rates = sorted(section.need("rates", list_of(POSITIVE)))
    if not rates:
        raise InputError(section.path("rates"), rates, "a list of at least one rate")
    made = Documents(
        rates,
        section.need("requests", integer(50)),
        section.need("tuning", one_of("fine_tuning", "lora")),
        section.need("tokens", POSITIVE),
        section.need("model", text),
        section.need("xpu", text),
        section.need("update_days", list_of(POSITIVE)),
        chunks,
        tokens,
        common,
    )
    section.finish()
    return made


def _overrides(way: str, requests: int) -> list[str]:
    given: list[Any] = ["workload=questions", "slo=rag", f"workload.limit={requests}", "workload.duration_s=null"]
    return [*_OVERRIDES[way], *given]


def _verdict(agree: int, cases: int) -> str:
    return UNTESTED if not cases else HOLDS if agree == cases else PARTLY if agree else FAILS

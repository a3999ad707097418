"""How many xPUs training, adapting and serving take, by model size: `hybridfleet size`, and what moves its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.study import FAILS, HOLDS, PARTLY, UNTESTED, Cell, Chart, Claim, Table
from scenarios.schema import Section, anything, integer, list_of, text
from scenarios.size import size_model
from scenarios.size_inputs import place_of, read_inputs
from scenarios.size_tables import Sized, sizes
from scenarios.size_training import plan_job
from scenarios.studies.capacity import side_by_side
from scenarios.studies.question_common import Answer, Common
from sim.errors import InputError

JOBS = ("training", "fine_tuning", "lora", "inference")


@dataclass(frozen=True, slots=True)
class Sizes:
    """The question, read: models on an xPU, keys of `hybridfleet size`, and ends of those that are varied."""

    models: list[str]
    given: Mapping[str, Any]
    slo: str
    varied: Mapping[str, Sequence[Any]]
    common: Common

    def answer(self) -> Answer:
        """Size every model."""
        asked = [(name, self.given, self.slo, self.common.search) for name in self.models]
        rows = sizes(side_by_side(_size, asked, self.common.processes))
        columns = ("model", "1e9 params", "training", "full tuning", "LoRA", "serving", "training [MWh]", "[t CO2e]")
        table: list[list[Cell]] = [
            [row["model"], row["params"] / 1e9, *(row[f"{job}_xpus"] for job in JOBS), row["training_mwh"],
             row["training_t"]]
            for row in rows
        ]  # fmt: skip
        caption = f"xPUs ({self.given['xpu']}) by model size"
        moved = self._moved(rows[-1]["model"]) if rows else []
        headings = ("input", "low", "high", "training xPUs, low", "high ")
        tables = [
            Table("sizes", caption, columns, table),
            *(
                [Table("sizes_varied", f"{rows[-1]['model']}: training with other inputs", headings, moved)]
                * bool(moved)
            ),
        ]
        params = [row["params"] / 1e9 for row in rows]
        lines = {job: (params, [row[f"{job}_xpus"] or math.nan for row in rows]) for job in JOBS}
        chart = Chart("sizes", f"{caption}.", "lines", "Parameters [1e9]", "xPUs", {self.given["xpu"]: lines}, log="xy")
        return Answer([_growth(rows), _adapting(rows)], tables, [chart])

    def _moved(self, model: str) -> list[list[Cell]]:
        rows: list[list[Cell]] = []
        for key, ends in self.varied.items():
            found = []
            for end in ends:
                inputs = read_inputs({**self.given, key: end}, self.common.search, self.slo)
                pool, _, rates, price = place_of(model, inputs)
                found.append(plan_job(inputs.jobs["training"], pool, rates, price, inputs).xpus)
            rows.append([key, f"{ends[0]:g}", f"{ends[1]:g}", *found])
        return rows


def read(section: Section, common: Common) -> Sizes:
    """The question from its section."""
    models = section.need("models", list_of(text))
    if len(set(models)) < max(2, len(models)):
        raise InputError(section.path("models"), models, "a list of at least two models that occur once")
    given = {"xpu": section.need("xpu", text), "inference.seed": common.seed}
    given |= {"inference.requests": section.need("requests", integer(50))}
    slo = section.need("slo", text)
    varied = {}
    for key, ends in section.child("uncertain").values.items():
        pair = list_of(anything)(f"{section.path('uncertain')}.{key}", ends)
        if len(pair) != 2 or not all(isinstance(end, int | float) for end in pair):
            raise InputError(f"{section.path('uncertain')}.{key}", ends, "two numbers, its low and its high end")
        varied[f"training.{key}"] = pair
        for end in pair:
            read_inputs({**given, f"training.{key}": end}, common.search, slo)
    section.finish()
    read_inputs(given, common.search, slo)
    return Sizes(models, given, slo, varied, common)


def _size(asked: tuple[str, Mapping[str, Any], str, Any]) -> Sized:
    name, given, slo, search = asked
    return size_model(name, read_inputs(given, search, slo))


def _growth(rows: Sequence[Mapping[str, Any]]) -> Claim:
    """From the smallest to the largest model, training grows faster than serving."""
    what = "xPUs of training grow faster with the model than those of serving"
    known = [row for row in rows if row["training_xpus"] and row["inference_xpus"]]
    if len(known) < 2:
        return Claim(what, UNTESTED, "Fewer than two models can be trained and served.")
    first, last = known[0], known[-1]
    factor = {job: last[f"{job}_xpus"] / first[f"{job}_xpus"] for job in ("training", "inference")}
    larger = last["params"] / first["params"]
    verdict = HOLDS if factor["training"] > factor["inference"] else FAILS
    evidence = (
        f"{first['model']} to {last['model']}, {larger:.0f} times the parameters: {factor['training']:.0f} times the "
        f"xPUs for training, {factor['inference']:.0f} times for serving."
    )
    return Claim(what, verdict, evidence)


def _adapting(rows: Sequence[Mapping[str, Any]]) -> Claim:
    """Adapters take no more than serving does."""
    cases = [(row["lora_xpus"], row["inference_xpus"]) for row in rows if row["lora_xpus"] and row["inference_xpus"]]
    agree = sum(lora <= serving for lora, serving in cases)
    verdict = UNTESTED if not cases else HOLDS if agree == len(cases) else PARTLY if agree else FAILS
    return Claim(
        "Whoever serves a model can adapt it on the same xPUs (LoRA)", verdict, f"{agree} of {len(cases)} models."
    )

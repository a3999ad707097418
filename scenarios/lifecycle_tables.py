"""What `hybridfleet lifecycle` found: tables by stage, who overtakes whom, curves over time, and JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analysis.agreement import beside, percent
from scenarios.lifecycle_inputs import LifeInputs
from scenarios.lifecycle_stages import Life
from scenarios.validation_tables import Table
from sim.accounting.lifecycle import (
    CARBON,
    CENTRAL,
    HIGH,
    LOW,
    QUANTITIES,
    Amount,
    Interval,
    overtaking,
    spent,
    whole_life,
)
from sim.units import JOULES_PER_KWH

NAMES = {
    "training": "pre-training, with trials",
    "tuning": "fine-tuning",
    "retraining": "retraining",
    "data": "data: licences, storage",
    "labour": "labour",
    "inference": "inference",
    "decommissioning": "decommissioning",
}
#: quantity -> heading, what it is divided by, and the same of a million tokens
SHOWN = {
    "energy_j": ("energy [MWh]", 1e3 * JOULES_PER_KWH, "energy [kWh]", JOULES_PER_KWH),
    "operational_g": ("operational CO2e [t]", 1e6, "operational CO2e [g]", 1.0),
    "embodied_g": ("embodied CO2e [t]", 1e6, "embodied CO2e [g]", 1.0),
    "usd": ("cost [USD]", 1.0, "cost [USD]", 1.0),
}
COMPARED = {"energy_j": "energy", CARBON: "carbon, both kinds", "usd": "dollars"}
UNKNOWN, _MILLION, _POINTS = "unknown", 1e6, 200
#: which end of inference against which of training: central values, then the soonest and the latest possible
_ENDS = {"central": (CENTRAL, CENTRAL), "earliest": (HIGH, LOW), "latest": (LOW, HIGH)}


def stages_table(life: Life) -> Table:
    """A row a stage: central values with their shares, and the interval of the sum."""
    parts, total = _parts(life)
    rows = [
        [NAMES[name], *(_with_share(part.of(key), total.of(key), SHOWN[key][1]) for key in SHOWN)]
        for name, part in parts.items()
    ]
    rows += [[], ["total", *(_cell(total.of(key), SHOWN[key][1]) for key in SHOWN)]]
    rows.append(["  low to high", *(_range(total.of(key), SHOWN[key][1]) for key in SHOWN)])
    return [f"{life.service.days:.0f} days of service", *(SHOWN[key][0] for key in SHOWN)], rows, 1


def token_table(life: Life) -> Table:
    """The same by a million output tokens served."""
    parts, total = _parts(life)
    millions = life.service.tokens(life.service.days) / _MILLION
    rows = [
        [NAMES[name], *(_cell(part.of(key), SHOWN[key][3] * millions) for key in SHOWN)] for name, part in parts.items()
    ]
    rows += [[], ["total", *(_cell(total.of(key), SHOWN[key][3] * millions) for key in SHOWN)]]
    rows.append(["  low to high", *(_range(total.of(key), SHOWN[key][3] * millions) for key in SHOWN)])
    return ["per 1e6 output tokens", *(SHOWN[key][2] for key in SHOWN)], rows, 1


def overtaking_table(life: Life) -> Table:
    """When inference has taken as much as all training."""
    rows = []
    for key, label in COMPARED.items():
        found = crossing(life, key)
        cells = [_day(found[end], life) for end in _ENDS]
        middle = found["central"]
        tokens = None if middle is None or math.isinf(middle) else life.service.tokens(middle)
        answers = None if tokens is None or life.tokens_per_answer is None else tokens / life.tokens_per_answer
        rows.append(
            [label, *cells, "–" if tokens is None else f"{tokens:.4g}", "–" if answers is None else f"{answers:.4g}"]
        )
    return ["inference overtakes training", "day", "earliest", "latest", "tokens", "answers"], rows, 1


def crossing(life: Life, quantity: str) -> dict[str, float | None]:
    """Days of `overtaking` for central values, and the earliest and latest."""
    inference = life.stages["inference"]
    return {name: overtaking(inference, life.training, quantity, life.service, ends) for name, ends in _ENDS.items()}


def notes(life: Life, inputs: LifeInputs) -> list[str]:
    """What a reader of the numbers must know."""
    served = life.service.tokens(life.service.days)
    lines = [
        f"{served:.4g} output tokens in {life.service.days:.0f} days, {life.service.tokens_per_day:.4g} on the first. "
        "Training is pre-training with trials, fine-tuning and retraining until then; low and high are sums of all "
        "lows and of all highs."
    ]
    if "training" in life.jobs:
        run = life.jobs["training"]
        origin = f", as published ({inputs.published_tokens})" if inputs.published_tokens else ""
        lines.append(
            f"Pre-training: {run.tokens:.4g} tokens{origin} on {run.xpus} xPUs for {run.seconds / 86400:.3g} days."
        )
    if life.serving is not None:
        plan = life.serving
        lines.append(
            f"Inference: {plan.rate:.4g} requests/s on {plan.replicas} x {plan.memory_xpus} xPUs, as simulated; later "
            "ones are taken to be as busy."
        )
    published = _published(life, inputs)
    if published is not None:
        lines.append(
            f"Published: inference overtakes after {published['measured']:,.0f} answers; here after "
            f"{published['simulated']:,.0f} ({percent(published['error'])})."
        )
    lines.append("Sources of every default: `hybridfleet list lifecycles default`; formulas: docs/lifecycle.md.")
    return lines


def life_json(life: Life, inputs: LifeInputs) -> dict[str, Any]:
    """Everything, in SI units, for programs."""
    parts, total = _parts(life)
    served = life.service.tokens(life.service.days)
    sizing = None if inputs.sizing is None else dict(inputs.sizing.values)
    return {
        "lifecycle": inputs.id,
        "inputs": dict(inputs.values),
        "sizing": sizing,
        "model": inputs.model,
        "days": life.service.days,
        "tokens": served,
        "tokens_per_day": life.service.tokens_per_day,
        "tokens_per_answer": life.tokens_per_answer,
        "stages": {name: _json(part) for name, part in parts.items()},
        "total": _json(total),
        "per_token": _json(total.times(1.0 / served)),
        "overtaking": {key: _crossing_json(life, key) for key in COMPARED},
        "published_answers": _published(life, inputs),
    }


def curves(life: Life) -> dict[str, Any]:
    """Central values over time: `day`, and per key of COMPARED what inference, training and all stages took so far."""
    jumps = [day for stage in life.training for day in stage.days]
    grid = np.linspace(0.0, life.service.days, _POINTS)
    days = np.unique([*grid, *jumps, *(math.nextafter(day, 0.0) for day in jumps)])
    groups = {"inference": [life.stages["inference"]], "training": life.training, "all": list(life.stages.values())}
    found: dict[str, Any] = {"day": days}
    for key in COMPARED:
        for group, stages in groups.items():
            found[f"{group}_{key}"] = _curve(life, stages, key, days)
    return found


def marks(life: Life) -> dict[str, float | None]:
    """Day on which inference overtakes by key of COMPARED, where it does."""
    days = {key: crossing(life, key)["central"] for key in COMPARED}
    return {key: None if day is None or math.isinf(day) else day for key, day in days.items()}


def _curve(life: Life, stages: list[Any], key: str, days: Any) -> list[float] | None:
    values = [[spent(stage, float(day), life.service).of(key) for stage in stages] for day in days]
    if any(value is None for row in values for value in row):
        return None
    return [sum(float(value[CENTRAL]) for value in row if value is not None) for row in values]


def _parts(life: Life) -> tuple[dict[str, Amount], Amount]:
    parts = {name: spent(stage, life.service.days, life.service) for name, stage in life.stages.items()}
    return parts, whole_life(life.stages.values(), life.service)


def _published(life: Life, inputs: LifeInputs) -> dict[str, Any] | None:
    day = crossing(life, "energy_j")["central"]
    if inputs.published_answers is None or day is None or math.isinf(day) or life.tokens_per_answer is None:
        return None
    return beside(inputs.published_answers, life.service.tokens(day) / life.tokens_per_answer)


def _json(amount: Amount) -> dict[str, Any]:
    values = {key: amount.of(key) for key in (*QUANTITIES, CARBON)}
    return {
        key: None if value is None else dict(zip(("low", "central", "high"), map(float, value)))
        for key, value in values.items()
    }


def _crossing_json(life: Life, key: str) -> dict[str, Any]:
    """Days and tokens of each end: null with a `status` that says why."""
    found = {}
    for name, day in crossing(life, key).items():
        status = UNKNOWN if day is None else "later" if math.isinf(day) else "overtakes"
        within = None if day is None or math.isinf(day) else day
        tokens = None if within is None else life.service.tokens(within)
        found[name] = {"status": status, "day": within, "tokens": tokens}
    return found


def _day(day: float | None, life: Life) -> str:
    if day is None:
        return UNKNOWN
    return f"not in {life.service.days:.0f}" if math.isinf(day) else f"{day:.1f}"


def _cell(value: Interval | None, unit: float) -> str:
    return UNKNOWN if value is None else _number(float(value[CENTRAL]) / unit)


def _with_share(value: Interval | None, total: Interval | None, unit: float) -> str:
    if value is None or total is None or not total[CENTRAL]:
        return _cell(value, unit)
    return f"{_cell(value, unit)} ({100.0 * value[CENTRAL] / total[CENTRAL]:.1f} %)"


def _range(value: Interval | None, unit: float) -> str:
    return UNKNOWN if value is None else f"{_number(value[LOW] / unit)} to {_number(value[HIGH] / unit)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.3g}"

"""What a search for capacity found: as JSON, as rows, and on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.capacity import MOST_LEFT, Load
from analysis.metrics import plain
from analysis.stats import interval
from analysis.table import number, percent


@dataclass(frozen=True, slots=True)
class Capacity:
    """The capacity of one fleet.

    Attributes:
        name: of the fleet.
        replicas: by pool.
        held: the highest load tried that is held; None if none is, down to a hundredth of the first guess.
        not_held: the lowest load tried above it that is not; None if all are, up to a hundred times the first guess.
        tried: every load, by rate; scouted: those of the short trials that came before.
        incomplete: what grams and dollars leave out, in words.
        refused: why the fleet cannot run; empty where it can.
    """

    name: str
    replicas: Mapping[str, int]
    held: Load | None = None
    not_held: Load | None = None
    tried: Sequence[Load] = ()
    scouted: Sequence[Load] = ()
    incomplete: tuple[str, ...] = ()
    refused: str = ""


def describe(found: Capacity, target: float) -> dict[str, Any]:
    """A capacity as JSON knows it."""
    if found.refused:
        return {"fleet": found.name, "replicas": dict(found.replicas), "refused": found.refused}
    described: dict[str, Any] = plain(
        {
            "fleet": found.name,
            "replicas": dict(found.replicas),
            "held_rps": 0.0 if found.held is None else found.held.rate,
            "not_held_rps": None if found.not_held is None else found.not_held.rate,
            "at_held": None if found.held is None else _load(found.held, target) | _taken(found.held),
            "at_not_held": None if found.not_held is None else _load(found.not_held, target),
            "incomplete": list(found.incomplete),
            "tried": [_load(each, target) for each in found.tried],
            "scouted": [_load(each, target) for each in found.scouted],
        }
    )
    return described


def _load(load: Load, target: float) -> dict[str, Any]:
    """What was seen at a rate."""
    attained = interval(load.attainments)
    enough = load.attainment >= target
    return {
        "rate_key_value": load.value,
        "rate_rps": load.rate,
        "requests": load.mean("requests"),
        "slo_attainment": attained.mean,
        "slo_attainment_low": None if attained.low is None else max(0.0, attained.low),
        "slo_attainment_high": None if attained.high is None else min(1.0, attained.high),
        "seeds_that_attain": sum(each >= target for each in load.attainments),
        "left_over": load.left,
        "left_over_allowed": load.allowed,
        "held": load.holds(target),
        "why_not": None if load.holds(target) else ("slo" if not enough else "backlog grows"),
    }


def _taken(load: Load) -> dict[str, Any]:
    """What the fleet takes at a rate."""
    mean_w = load.mean("mean_w")
    peak_w = load.peak_w
    return {
        "peak_kw": None if peak_w is None else peak_w / 1e3,
        "mean_kw": None if mean_w is None else mean_w / 1e3,
        "usd_per_hour": load.mean("usd_per_hour"),
        "g_per_hour": load.mean("g_per_hour"),
    }


def flat(capacities: Sequence[Capacity], target: float) -> list[dict[str, Any]]:
    """One row a fleet, for CSV."""
    rows = []
    for each in capacities:
        held = {} if each.held is None else _load(each.held, target) | _taken(each.held)
        keys = ("slo_attainment", "seeds_that_attain", "left_over", "peak_kw", "mean_kw", "usd_per_hour", "g_per_hour")
        rows.append(
            {
                "fleet": each.name,
                **{f"replicas_{pool}": count for pool, count in each.replicas.items()},
                "held_rps": None if each.refused else each.held.rate if each.held else 0.0,
                "not_held_rps": None if each.not_held is None else each.not_held.rate,
                **{key: held.get(key) for key in keys},
                "refused": each.refused,
            }
        )
    return rows


def trials(capacities: Sequence[Capacity]) -> list[dict[str, Any]]:
    """One row a fleet, rate and seed, for CSV."""
    return [
        {"fleet": each.name, "rate_rps": load.rate, "rate_key_value": load.value, "seed_number": number, **row}
        for each in capacities
        for load in (*each.scouted, *each.tried)
        for number, row in enumerate(load.rows)
    ]


def print_capacities(capacities: Sequence[Capacity], target: float, seeds: int) -> None:
    """Print one row a fleet, and what the columns mean."""
    from analysis.agreement import print_table

    word = "seed" if seeds == 1 else "seeds"
    headings = ["fleet", "held\n[1/s]", "not held\n[1/s]", "within SLO\n[%]", "peak\n[kW]", "mean\n[kW]", "USD / h",
                "g CO2e / h", "rates\ntried"]  # fmt: skip
    print_table(headings, [_row(each, target) for each in capacities], 1)
    print(f"Held: at least {100 * target:g} % of requests within their SLO ({seeds} common {word}), and at most "
          f"{100 * MOST_LEFT:g} % of them left over for later; the rest at the rate held.")  # fmt: skip
    for line in dict.fromkeys(line for each in capacities for line in each.incomplete):
        print(f"  not in the totals: {line}")
    for each in capacities:
        if each.refused:
            print(f"  no answer: {each.name}: {each.refused}")


def _row(found: Capacity, target: float) -> list[str]:
    if found.refused:
        return [found.name, *[number(None)] * 8]
    held = found.held
    taken = _taken(held) if held else {}
    above = "" if found.not_held is None else number(found.not_held.rate)
    if found.not_held is not None and found.not_held.attainment >= target:
        above += " (backlog)"
    return [
        found.name,
        number(held.rate) if held else "0",
        above or "none",
        percent(held.attainment) if held else number(None),
        *(number(taken.get(key)) for key in ("peak_kw", "mean_kw", "usd_per_hour", "g_per_hour")),
        str(len(found.tried) + len(found.scouted)),
    ]

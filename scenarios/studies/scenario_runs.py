"""Runs of whole scenarios for studies: composed once, changed by key, and what their pools took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.comparison import Row
from scenarios.compose import Job, composed
from scenarios.studies.capacity import side_by_side
from scenarios.trials import Trial
from sim.errors import InputError


@dataclass(frozen=True, slots=True)
class PoolTook:
    """What a pool took, whole and for its work alone, without idle time and boot.

    Attributes:
        kind: of its site.
        pue: facility energy over that of its xPUs and hosts.
        kwh, active_kwh: at the facility.
        embodied_g, active_embodied_g: None where not known [g CO2e].
    """

    kind: str
    pue: float
    kwh: float
    active_kwh: float
    embodied_g: float | None
    active_embodied_g: float | None

    def grams(self, g_per_kwh: float, whole: bool, power: float = 1.0, making: float = 1.0) -> float:
        """Carbon on a grid of another intensity, energy and embodied carbon times a factor each [g CO2e]."""
        kwh, made = (self.kwh, self.embodied_g) if whole else (self.active_kwh, self.active_embodied_g)
        return kwh * power * g_per_kwh + (made or 0.0) * making


@dataclass(frozen=True, slots=True)
class Seen:
    """One run: its measures (`analysis.comparison.measures`), and what each pool took."""

    row: Row
    pools: Mapping[str, PoolTook]

    @property
    def completed(self) -> float:
        """Requests that were answered."""
        return (self.row["requests"] or 0.0) * (self.row["completed_share"] or 0.0)

    def known(self, key: str) -> float:
        """A measure; NaN where it is not known."""
        value = self.row[key]
        return float("nan") if value is None else value


class Scenario:
    """A configuration that is composed once.

    Args:
        name: what it is called.
        overrides: of the default configuration.
        search: the user's own folders; Hydra takes the first.
    """

    def __init__(self, name: str, overrides: Sequence[str], search: tuple[Path, ...] = ()) -> None:
        self.name, self._search = name, search
        self._job: Job = composed(overrides, search[0] if search else None)

    def trial(self, changes: Mapping[str, Any]) -> Trial:
        """The scenario with other values by dotted key."""
        return Trial(self.name, self._job.resolve(changes), self._search)


def observe_all(trials: Sequence[Trial], processes: int) -> list[Seen]:
    """Run all of them; a refusal of any ends the study."""
    return side_by_side(observe, trials, processes)


def observe(trial: Trial) -> Seen:
    """Run one.

    Raises:
        InputError: its configuration cannot be used.
    """
    from analysis.comparison import measures
    from analysis.metrics import summarize
    from scenarios.build import build

    try:
        made = build(trial.config, trial.search)
    except InputError as error:
        raise InputError(error.key, error.value, error.accepted, error.where or trial.name) from error
    result = made.run()
    summary = summarize(result)
    return Seen(measures(result, summary), {name: _took(pool) for name, pool in summary["by_pool"].items()})


def _took(pool: Mapping[str, Any]) -> PoolTook:
    parts, made = pool["parts"], pool["carbon_kg"]["embodied"]
    active = parts["carbon_embodied_kg"]
    return PoolTook(
        pool["site_kind"],
        pool["pue"],
        pool["energy_kwh"],
        parts["energy_kwh"]["active"] + parts["energy_kwh"]["wasted"],
        None if made is None else 1e3 * made,
        None if made is None else 1e3 * (active["active"] + active["wasted"]),
    )

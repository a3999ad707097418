"""Instances, parallelism and clock by load: which setting of a node takes least energy within an SLO."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from analysis.study import Outcome
from scenarios.schema import Section
from scenarios.studies import load_settings_tables as tables
from scenarios.studies.load_settings_study import Setting, read
from scenarios.studies.scenario_runs import Scenario, observe_all


def run(preset: Section, search: tuple[Path, ...]) -> Outcome:
    """Simulate all of a preset.

    Raises:
        InputError: an input that cannot be used.
    """
    study = read(preset, search)
    made = {name: Scenario(name, overrides, search) for name, overrides in study.scenarios.items()}
    keys = [*product(study.scenarios, study.rates, study.settings)]
    trials = [made[name].trial(_changes(rate, setting, study.seed)) for name, rate, setting in keys]
    seen = dict(zip(keys, observe_all(trials, study.processes)))
    runs = {name: {(r, s): seen[name, r, s] for r, s in product(study.rates, study.settings)} for name in made}
    first = next(iter(runs.values()))
    shown = [tables.best_table(study, first), tables.every(study, first)]
    if len(runs) > 1:
        shown.insert(1, tables.varied(study, runs))
    return Outcome(study.title, tables.claims(study, first), shown, [tables.chart(study, first)], tables.notes(study))


def _changes(rate: float, setting: Setting, seed: int) -> dict[str, object]:
    return {
        "workload.rate": rate,
        "fleet.tp": setting.tp,
        "fleet.replicas": setting.replicas,
        "fleet.clock_limit": setting.clock if setting.clock < 1.0 else None,
        "seed": seed,
    }

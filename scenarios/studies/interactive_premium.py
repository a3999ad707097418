"""What tight latency bounds cost: one deployment offline, under server bounds and under interactive ones."""

from __future__ import annotations

from pathlib import Path

from analysis.study import Outcome
from scenarios.schema import Section
from scenarios.studies import interactive_premium_inputs as inputs
from scenarios.studies import interactive_premium_tables as tables
from scenarios.studies import interactive_premium_varied as varied
from scenarios.studies.interactive_premium_study import explore


def run(preset: Section, search: tuple[Path, ...]) -> Outcome:
    """Simulate all of a preset.

    Raises:
        InputError: an input that cannot be used.
    """
    study = inputs.read(preset, search)
    ways = varied.read(preset, study)
    preset.finish()
    found = explore(study)
    moved = varied.moved(study, found, ways)
    return Outcome(
        study.title,
        tables.claims(study, found, moved),
        [*tables.tables(study, found), *varied.tables(moved)],
        [tables.bars(study, found), *varied.charts(moved)],
        tables.notes(study),
    )

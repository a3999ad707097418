"""An old GPU against a new one: which emits less a token, by model, batch, phase and grid."""

from __future__ import annotations

from pathlib import Path

from analysis.study import Outcome
from scenarios.schema import Section
from scenarios.studies import old_and_new_claims as verdicts
from scenarios.studies import old_and_new_tables as tables
from scenarios.studies import old_and_new_varied as varied
from scenarios.studies.old_and_new_study import read


def run(preset: Section, search: tuple[Path, ...]) -> Outcome:
    """Simulate all of a preset.

    Raises:
        InputError: an input that cannot be used.
    """
    study = read(preset, search)
    ways = varied.read(preset, study)
    preset.finish()
    moved = varied.moved(study, ways)
    return Outcome(
        study.title,
        verdicts.claims(study),
        [*tables.tables(study), *varied.tables(moved)],
        [tables.curves(study), varied.tornado(study, moved)],
        verdicts.notes(study),
    )

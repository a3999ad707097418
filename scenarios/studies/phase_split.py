"""Machines for prompts and machines for tokens against machines for both, at equal power and at equal cost."""

from __future__ import annotations

from pathlib import Path

from analysis.study import Outcome
from scenarios.schema import Section
from scenarios.studies import phase_split_tables as tables
from scenarios.studies.phase_split_study import explore, read


def run(preset: Section, search: tuple[Path, ...]) -> Outcome:
    """Simulate all of a preset.

    Raises:
        InputError: an input that cannot be used.
    """
    study = read(preset, search)
    preset.finish()
    found = explore(study)
    return Outcome(
        study.title, tables.claims(study, found), tables.tables(study, found), [tables.bars(found)], tables.notes(study)
    )

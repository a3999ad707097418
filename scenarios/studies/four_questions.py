"""Four questions about LLM services: xPUs by size, cost against QoE, documents or tuning, hybrid or cloud alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from analysis.study import Chart, Claim, Outcome, Table
from scenarios.schema import Section, integer, text


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question found."""

    claims: list[Claim]
    tables: list[Table]
    charts: list[Chart]


@dataclass(frozen=True, slots=True)
class Common:
    """What all questions share: the seed, processes side by side, and the user's own folders."""

    seed: int
    processes: int
    search: tuple[Path, ...]


def run(preset: Section, search: tuple[Path, ...]) -> Outcome:
    """Answer the questions that the preset asks; one whose section is null is left out.

    Raises:
        InputError: an input that cannot be used.
    """
    from scenarios.studies import question_documents, question_hybrid, question_qoe, question_sizes

    preset.need("program", text)
    title = preset.need("title", text)
    common = Common(preset.need("seed", integer()), preset.need("processes", integer(1)), search)
    modules = {
        "sizes": question_sizes,
        "qoe": question_qoe,
        "documents": question_documents,
        "hybrid": question_hybrid,
    }
    asked = {name: preset.child(name) for name in modules if preset.values.get(name) is not None}
    for name in modules:
        preset.child(name)
    preset.finish()
    prepared = [modules[name].read(section, common) for name, section in asked.items()]  # all inputs, before any runs
    answers = [each.answer() for each in prepared]
    notes = [
        "The paper asks these questions and sketches answers in words; the hypotheses put them so that numbers can "
        "decide. Its text was not at hand: they are from memory of it.",
        "Energy and carbon of networks are not known and left out.",
    ]
    return Outcome(
        title,
        [claim for answer in answers for claim in answer.claims],
        [table for answer in answers for table in answer.tables],
        [chart for answer in answers for chart in answer.charts],
        notes,
    )

"""Four questions about LLM services: xPUs by size, cost against QoE, documents or tuning, hybrid or cloud alone."""

from __future__ import annotations

from pathlib import Path

from analysis.study import Outcome
from scenarios.schema import Section, integer, text
from scenarios.studies import question_documents, question_hybrid, question_qoe, question_sizes
from scenarios.studies.question_common import Common


def run(preset: Section, search: tuple[Path, ...]) -> Outcome:
    """Answer the questions that the preset asks; one whose section is null is left out.

    Raises:
        InputError: an input that cannot be used.
    """
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

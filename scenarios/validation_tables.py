"""Comparisons over many runs as tables and as JSON: one row a run, then mean and median absolute error."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.agreement import Section, absolute, pair_cells, percent, share
from scenarios import aggregates, energy

Table = tuple[list[str], list[list[str]], int]  #: headings, rows of cells ([] is a line), and how many are texts


def aggregates_table(rows: Sequence[aggregates.Compared]) -> Table:
    """A row a run, and one a stage below it where it has several."""
    headings = ["run, stages", "deployment", "E2E [s]", "sim.", "error", "ITL [ms]", "sim.", "error", "TTFT [ms]"]
    headings += ["sim.", "error"]
    cells: list[list[str]] = []
    for row in rows:
        if row.only_stage:
            continue
        names = [row.experiment, f"{row.model}, {row.xpu}"] if row.stage == aggregates.WHOLE else [f"  {row.load}", ""]
        each = [row.errors[key] for key in aggregates.METRICS]
        cells.append(
            [*names, *(cell for pair, scale in zip(each, (1.0, 1e3, 1e3)) for cell in pair_cells(pair, scale))]
        )
    summary = absolute([row.errors for row in whole_runs(rows)], aggregates.METRICS)
    cells.append([])
    for name in ("mean", "median"):
        blanks = [cell for key in aggregates.METRICS for cell in ("", "", share(summary[key][name]))]
        cells.append([f"{name} absolute error of runs", "", *blanks])
    return headings, cells, 2


def whole_runs(rows: Sequence[aggregates.Compared]) -> list[aggregates.Compared]:
    """One row a run: that of the whole run, or of its only stage where the file has no other."""
    runs: dict[str, aggregates.Compared] = {}
    for row in rows:
        if row.stage == aggregates.WHOLE or (row.only_stage and row.experiment not in runs):
            runs[row.experiment] = row
    return list(runs.values())


def aggregates_notes() -> list[str]:
    """What a reader of the numbers must know."""
    return [
        "Measured at the client: times contain its network and the server's front end, the simulated ones a constant.",
        "Prompts repeat: prefix hits but for the first use of each and the last 16 + prompt mod 16 tokens of any.",
    ]


def aggregates_json(rows: Sequence[aggregates.Compared]) -> Section:
    """Every row, and the absolute errors over runs."""
    return {
        "runs": [
            {
                "experiment": row.experiment,
                "model": row.model,
                "xpu": row.xpu,
                "stage_index": row.stage,
                "stages": row.load,
                **row.errors,
            }
            for row in rows
        ],
        "absolute_error": absolute([row.errors for row in whole_runs(rows)], aggregates.METRICS),
    }


def energy_table(done: energy.Energies) -> Table:
    """A row a case."""
    headings = ["deployment", "batch", "prompt", "output", "rows", "J/token", "sim.", "error"]
    headings += ["at measured pace", "step [ms]", "sim.", "error"]
    cells: list[list[str]] = []
    for each in done.cases:
        case, errors = each.case, each.errors
        at_pace = errors.get("joules_per_token_at_pace")
        cells.append(
            [
                f"{case.model} {case.precision}, {case.tp} x {case.xpu}",
                *map(str, (case.batch, case.prompt, case.output, each.rows)),
                *pair_cells(errors["joules_per_token"]),
                percent(at_pace["error"] if at_pace else None),
                *pair_cells(errors.get("step_s"), 1e3),
            ]
        )
    summary = absolute([each.errors for each in done.cases], energy.METRICS)
    cells.append([])
    for name in ("mean", "median"):
        joules, pace, step = (share(summary[key][name]) for key in energy.METRICS)
        cells.append([f"{name} absolute error", *[""] * 6, joules, pace, "", "", step])
    return headings, cells, 1


def energy_notes(done: energy.Energies) -> list[str]:
    """What a reader of the numbers must know, and which rows are missing."""
    return [
        "xPUs alone, without host and PUE. At measured pace: the simulated work, and the simulated static power over "
        "the measured time of a step.",
        *(f"left out: {reason}" for reason in done.reasons()),
    ]


def energy_json(done: energy.Energies) -> Section:
    """Every case, and the absolute errors."""
    return {
        "runs": [{**each.case._asdict(), "rows": each.rows, **each.errors} for each in done.cases],
        "absolute_error": absolute([each.errors for each in done.cases], energy.METRICS),
        "left_out": done.reasons(),
    }

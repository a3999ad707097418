"""Comparisons over many runs as tables and as JSON: one row a run, then mean and median absolute error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.agreement import Section, absolute, pair_cells, percent, share
from scenarios import aggregates, energy, kernel_power
from scenarios.fitting import Floats

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
    headings += ["pace", "at simulated pace", "step [ms]", "sim.", "error"]
    cells: list[list[str]] = []
    for each in done.cases:
        case, errors = each.case, each.errors
        cells.append(
            [
                f"{case.model} {case.precision}, {case.tp * case.pp} x {case.xpu}" + ", suspected" * each.suspected,
                *map(str, (case.batch, case.prompt, case.output, each.rows)),
                *pair_cells(errors["joules_per_token"]),
                each.pace,
                percent(errors["joules_per_token_simulated"]["error"]),
                *pair_cells(errors.get("step_s"), 1e3),
            ]
        )
    summary = absolute(done.trusted(), energy.METRICS)
    cells.append([])
    for name in ("mean", "median", "max"):
        joules, _, simulated, step = (share(summary[key][name]) for key in energy.METRICS)
        cells.append([f"{name} absolute error", *[""] * 6, joules, "", simulated, "", "", step])
    return headings, cells, 1


def energy_notes(done: energy.Energies) -> list[str]:
    """What a reader of the numbers must know, and which rows are missing."""
    return [
        "xPUs alone, without host and PUE. At measured pace, the default where a file knows its pace: the simulated "
        "work, and the simulated static power over the measured time; pace=simulated takes the simulated time.",
        *_suspected(done),
        *(f"left out: {reason}" for reason in done.left_out),
    ]


def _suspected(done: energy.Energies) -> list[str]:
    count = sum(each.suspected for each in done.cases)
    if not count:
        return []
    about = "shown, and left out of the summary: they took far less than the same batch with a shorter prompt"
    return [f"suspected: {count} case{'s' * (count != 1)} {about}"]


def energy_json(done: energy.Energies) -> Section:
    """Every case, and the absolute errors."""
    return {
        "runs": [
            {
                **each.case._asdict(),
                "rows": each.rows,
                "pace": each.pace,
                "suspected": each.suspected,
                **each.errors,
            }
            for each in done.cases
        ],
        "absolute_error": absolute(done.trusted(), energy.METRICS),
        "left_out": done.left_out,
    }


def kernel_table(done: kernel_power.KernelTable) -> Table:
    """A row a kind of kernel and xPU, then all."""
    headings = ["kernels", "count", "mean abs. error of J", "median", "p90", "worst", "joules of all"]
    headings += [f"{kernel_power.LONG_S * 1e6:.0f} us and longer", "median"]
    cells: list[list[str]] = []
    for each in done.kernels:
        errors, longer = np.abs(each.errors()), each.seconds >= kernel_power.LONG_S
        joules = float(each.simulated_w(each.xpu) @ each.seconds / (each.power_w @ each.seconds)) - 1.0
        row = [f"{each.op}, {each.xpu.id}", str(len(errors)), *map(share, _spread(errors)), percent(joules)]
        cells.append([*row, str(int(longer.sum())), share(float(np.median(errors[longer])) if longer.any() else None)])
    errors = np.concatenate([np.abs(each.errors()) for each in done.kernels])
    cells += [[], ["all", str(len(errors)), *map(share, _spread(errors)), "", "", ""]]
    return headings, cells, 1


def _spread(errors: Floats) -> list[float]:
    """Mean, median, 90th percentile and largest."""
    return [float(value) for value in (errors.mean(), np.median(errors), np.percentile(errors, 90), errors.max())]


def kernel_notes(done: kernel_power.KernelTable) -> list[str]:
    """What a reader of the numbers must know, and which rows are missing."""
    return [
        "Power times length of a kernel, with the coefficients of the catalogue at the kernel's own MFU and MBU.",
        *(f"left out: {reason}" for reason in done.left_out),
    ]


def kernel_json(done: kernel_power.KernelTable) -> Section:
    """The errors of every kind of kernel, and over all."""
    everything = np.concatenate([np.abs(each.errors()) for each in done.kernels])
    names = ("mean", "median", "p90", "max")
    return {
        "kernels": [
            {
                "xpu": each.xpu.id,
                "op": each.op,
                "rows": len(each.seconds),
                "absolute_error": dict(zip(names, _spread(np.abs(each.errors())))),
            }
            for each in done.kernels
        ],
        "absolute_error": {"joules_per_kernel": {**dict(zip(names, _spread(everything))), "rows": len(everything)}},
        "left_out": done.left_out,
    }

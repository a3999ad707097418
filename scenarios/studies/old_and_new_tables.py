"""Tables and figure of an old GPU against a new one: every case, ratios, and where the greener one changes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product

from analysis.study import Cell, Chart, Table
from scenarios.studies.equal_batch import PHASES
from scenarios.studies.old_and_new_study import ALONE, NEW, OLD, WITH_HOST, Setup, Study
from sim.hardware.model import Model


def tables(study: Study) -> list[Table]:
    """All tables of the study itself."""
    return [_ratios(study), _greener(study), _shares(study), _cells(study)]


def _every(study: Study) -> Iterator[tuple[Cell, ...]]:
    """A row for each boundary, grid, model, xPU, batch and phase: energy, time, power and carbon of a token."""
    for (boundary, setup), model, which, batch in product(study.setups.items(), study.models, (OLD, NEW), study.sizes):
        spent = setup.spent(model, which, batch)
        for phase, (grid, g_per_kwh) in product(PHASES, study.grids.items()):
            head = (model.id, setup.xpus[which].id, batch, phase)
            if spent is None:
                yield (*head, None, None, None, boundary, grid, None, None, None)
                continue
            each = spent[phase]
            used, made = setup.around(which).carbon_g(each, g_per_kwh)
            measures = (each.joules, each.seconds, each.power_w)
            yield (*head, *measures, boundary, grid, used, made, made / (used + made))


def _cells(study: Study) -> Table:
    columns = ("model", "xpu", "batch", "phase", "j_per_token", "s_per_token", "power_w", "boundary", "grid",
               "operational_g_per_token", "embodied_g_per_token", "embodied_share")  # fmt: skip
    return Table("cells", "Every case; empty where the batch does not fit", columns, list(_every(study)), shown=False)


def _ratios(study: Study) -> Table:
    """Old over new: energy and time of the GPU, and all carbon by boundary and grid."""
    old, new = study.names
    columns = ["model", "phase", "batch", "energy", "time"]
    columns += [f"{label(grid)}{' + host' * (name == WITH_HOST)}" for name in study.setups for grid in study.grids]
    rows = []
    for model, phase, batch in product(study.models, PHASES, study.sizes):
        spent = [study.setups[ALONE].spent(model, which, batch) for which in (OLD, NEW)]
        row: list[Cell] = [model.id, phase, batch]
        if spent[OLD] is None or spent[NEW] is None:
            row += [None, None]
        else:
            one, other = spent[OLD][phase], spent[NEW][phase]
            row += [one.joules / other.joules, one.seconds / other.seconds]
        rows.append(
            row + [s.ratio(model, batch, phase, g) for s in study.setups.values() for g in study.grids.values()]
        )
    caption = f"{old} over {new}, a token: energy and time of the GPU, carbon by grid (– where the batch does not fit)"
    return Table("ratios", caption, tuple(columns), rows)


def _greener(study: Study) -> Table:
    """Which xPU emits less a token, by batch, with the batch at which that changes."""
    rows = [
        [model.id, phase, boundary, *(greener(study, setup, model, phase, g) for g in study.grids.values())]
        for model, phase, (boundary, setup) in product(study.models, PHASES, study.setups.items())
    ]
    columns = ("model", "phase", "boundary", *map(label, study.grids))
    return Table("greener", "The greener GPU, by batch (found between the batches listed, to 1)", columns, rows)


def greener(study: Study, setup: Setup, model: Model, phase: str, g_per_kwh: float) -> str:
    """In words: ``t4 to 5, rtx_6000_ada from 6``."""
    held = [batch for batch in study.sizes if setup.ratio(model, batch, phase, g_per_kwh) is not None]
    if not held:
        return "cannot be compared"
    wins = [_winner(setup, model, batch, phase, g_per_kwh) for batch in held]
    words, since = [], held[0]
    for (low, before), (high, after) in pairwise(zip(held, wins)):
        if before == after:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            same = _winner(setup, model, middle, phase, g_per_kwh) == before
            low, high = (middle, high) if same else (low, middle)
        words.append(f"{study.names[before]} {since}-{low}" if since < low else f"{study.names[before]} {low}")
        since = high
    words.append(
        f"{study.names[wins[-1]]} {since}-{held[-1]}" if since < held[-1] else f"{study.names[wins[-1]]} {since}"
    )
    return ", ".join(words)


def _winner(setup: Setup, model: Model, batch: int, phase: str, g_per_kwh: float) -> int:
    ratio = setup.ratio(model, batch, phase, g_per_kwh)
    return OLD if ratio is not None and ratio < 1.0 else NEW


def _shares(study: Study) -> Table:
    """The share of embodied carbon, by xPU, boundary and grid: smallest and largest over models, batches and phases."""
    rows = []
    for which, (boundary, setup) in product((OLD, NEW), study.setups.items()):
        cells: list[Cell] = [setup.xpus[which].id, boundary]
        for g_per_kwh in study.grids.values():
            shares = list(shares_of(study, setup, which, g_per_kwh))
            cells += [100.0 * min(shares), 100.0 * max(shares)] if shares else [None, None]
        rows.append(cells)
    columns = [f"{label(grid)}, {end}" for grid in study.grids for end in ("least", "most")]
    caption = "Embodied share of all carbon [%], over models, batches and phases"
    return Table("embodied_share", caption, ("xpu", "boundary", *columns), rows)


def shares_of(study: Study, setup: Setup, which: int, g_per_kwh: float) -> Iterator[float]:
    """Embodied shares of an xPU in one grid, over models, batches and phases."""
    for model, batch, phase in product(study.models, study.sizes, PHASES):
        found = setup.grams(model, which, batch, phase, g_per_kwh)
        if found is not None:
            yield found[1] / sum(found)


def curves(study: Study) -> Chart:
    """Carbon of old over new by batch: a panel a phase and boundary, a line a model, in the cleanest grid."""
    grid = min(study.grids, key=lambda name: study.grids[name])
    panels = {}
    for phase, (boundary, setup) in product(PHASES, study.setups.items()):
        series = {}
        for model in study.models:
            ratios = {batch: setup.ratio(model, batch, phase, study.grids[grid]) for batch in study.sizes}
            kept = {batch: ratio for batch, ratio in ratios.items() if ratio is not None}
            series[model.id] = (list(kept), list(kept.values()))
        panels[f"{phase}, {boundary}"] = series
    old, new = study.names
    caption = f"Carbon of a token on {old} over that on {new}, in {grid}; below 1 the {old} is the greener one."
    return Chart("ratio", caption, "lines", "Batch", "CO2e, old over new", panels, log="x", level=1.0)


def label(grid: str) -> str:
    """A grid as tables name it."""
    return grid.removeprefix("study_")

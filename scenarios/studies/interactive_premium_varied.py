"""One input at a time of the interactive premium: how far it moves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.study import Chart, Table
from scenarios.schema import POSITIVE, Section, integer, number, text
from scenarios.studies.capacity import side_by_side
from scenarios.studies.interactive_premium_study import (
    ABOVE,
    INTERACTIVE,
    MODES,
    OFFLINE,
    SERVER,
    Found,
    Setup,
    Study,
)
from scenarios.studies.varied import Way, Ways
from sim.workload.lengths import LogNormal

_TIMING = ("compute_eff", "weight_eff", "kv_eff", "layer_overhead_s")
Best = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Moved:
    """Premium over server and over offline: as the preset is, and at both ends of an input."""

    way: Way[Setup]
    base: tuple[float, float]
    ends: tuple[tuple[float, float], tuple[float, float]]


def read(preset: Section, study: Study) -> list[Way[Setup]]:
    """The inputs that the preset calls uncertain, each at both ends."""
    section = preset.child("uncertain")
    base = replace(study.setup, requests=study.setup.tried)
    ways = Ways[Setup](section)
    vary = ways.vary
    vary("prompt", POSITIVE, lambda x: replace(base, prompt=_scaled(base.prompt, x)), "prompts, times")
    vary("output", POSITIVE, lambda x: replace(base, output=_scaled(base.output, x)), "answers, times")
    vary("share", number("a share in (0, 1)", above=0.0, high=1.0), lambda x: _sharing(base, x), "share within bounds")
    vary("interactive_tpot_s", POSITIVE, lambda x: _bound(base, x))
    vary("kv_precision", text, lambda x: replace(base, pool=replace(base.pool, kv_precision=x)))
    vary("replicas", integer(1), lambda x: replace(base, pool=replace(base.pool, replicas=x)))
    vary("seed", integer(), lambda x: replace(base, seed=x))
    for name in _TIMING:
        vary("timing", POSITIVE, lambda x, n=name: _timed(base, n, x), f"{base.pool.xpu.id} {name}, times")
    section.finish()
    return ways.found


def _scaled(law: LogNormal, factor: float) -> LogNormal:
    return LogNormal(median=law.median * factor, sigma=law.sigma, minimum=law.minimum, maximum=law.maximum)


def _sharing(base: Setup, share: float) -> Setup:
    return replace(base, bounds={mode: replace(each, share=share) for mode, each in base.bounds.items()})


def _bound(base: Setup, tpot_s: float) -> Setup:
    return replace(base, bounds={**base.bounds, INTERACTIVE: replace(base.bounds[INTERACTIVE], tpot_s=tpot_s)})


def _timed(base: Setup, name: str, factor: float) -> Setup:
    """A setup in which one coefficient of the xPU is `factor` times what its entry says."""
    xpu = base.pool.xpu
    timing = replace(xpu.timing, **{name: getattr(xpu.timing, name) * factor})
    return replace(base, pool=replace(base.pool, xpu=replace(xpu, timing=timing)))


def moved(study: Study, found: Found, ways: Sequence[Way[Setup]]) -> list[Moved]:
    """Every input at both ends, each mode with the engine's settings that were best in it; fewer requests a run."""
    base = replace(study.setup, requests=study.setup.tried)
    setups = [base, *(setup for way in ways for setup in way.setups)] if ways else []
    pairs = side_by_side(_premiums, [(setup, found.batch) for setup in setups], study.processes)
    ends = pairs[1:]
    return [Moved(way, pairs[0], (ends[2 * i], ends[2 * i + 1])) for i, way in enumerate(ways)]


def _premiums(case: tuple[Setup, Best]) -> tuple[float, float]:
    """Interactive over server and over offline."""
    setup, best = case
    offline = setup.with_batch(best[OFFLINE]).offline()
    server, tight = (setup.with_batch(best[mode]).bounded(mode, ABOVE * offline) for mode in MODES[1:])
    return (server / tight, offline / tight) if tight else (math.inf, math.inf)


def tables(found: Sequence[Moved]) -> list[Table]:
    """A row an input, the widest first; none where nothing is varied."""
    if not found:
        return []
    rows = [[m.way.name, *m.way.ends, *(end[which] for which in (0, 1) for end in m.ends)] for m in found]
    rows.sort(key=lambda row: -abs(float(row[4]) - float(row[3])))
    caption = (
        f"One input at a time, shorter runs ({found[0].base[0]:.2f} and {found[0].base[1]:.2f} as the preset is): "
        "interactive over server, and over offline, at the low and the high end"
    )
    columns = ("input", "low", "high", "server, low", "server, high", "offline, low", "offline, high")
    return [Table("sensitivity", caption, columns, rows)]


def charts(found: Sequence[Moved]) -> list[Chart]:
    """Both premiums, of the inputs at whose ends they are finite."""
    kept = [m for m in found if math.isfinite(sum(map(sum, (m.base, *m.ends))))]
    if not kept:
        return []
    titles = {f"interactive over {mode}": which for which, mode in enumerate((SERVER, OFFLINE))}
    panels = {
        title: {m.way.name: (m.ends[0][which], m.ends[1][which]) for m in kept} for title, which in titles.items()
    }
    base = {title: kept[0].base[which] for title, which in titles.items()}
    caption = "Premium with one input at a time at its low (blue) and high (orange) end."
    return [Chart("tornado", caption, "tornado", "times", "", panels, base=base)]

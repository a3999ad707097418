"""One input at a time of an old GPU against a new one: how far the answer moves, and whether it turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from analysis.study import Cell, Chart, Table
from scenarios.entries import Catalogue
from scenarios.schema import Section, anything, integer, number, text
from scenarios.studies.equal_batch import PHASES
from scenarios.studies.old_and_new_study import ALONE, NEW, OLD, Setup, Study, embodied, with_host
from scenarios.studies.varied import Way, Ways
from sim.accounting.embodied import in_second_life
from sim.errors import InputError
from sim.hardware.xpu import XPU
from sim.units import SECONDS_PER_YEAR

_POWER = ("static_w", "active_w", "compute_w", "memory_w")
_TIMING = ("compute_eff", "weight_eff", "kv_eff", "attn_eff", "layer_overhead_s")
_FACTOR = number("a factor > 0", above=0.0)


@dataclass(frozen=True, slots=True)
class Moved:
    """How an input moves the carbon of old over new: at its own value, its low and its high end, at one corner."""

    way: Way[Setup]
    corner: str
    phase: str
    grid: str
    base: float
    ends: tuple[float | None, float | None]

    @property
    def turns(self) -> bool:
        """Whether either end makes another GPU the greener one."""
        return any(end is not None and (end < 1.0) != (self.base < 1.0) for end in self.ends)

    @property
    def spread(self) -> float:
        """Largest change of the ratio, as a share of it."""
        return max((abs(end / self.base - 1.0) for end in self.ends if end is not None), default=0.0)


def read(preset: Section, study: Study) -> list[Way[Setup]]:
    """The inputs that the preset calls uncertain, each at both ends, around the boundary of the GPU alone."""
    section, base = preset.child("uncertain"), study.setups[ALONE]
    catalogue = Catalogue(base.search)
    stated = preset.child("stated_kg")
    kg = {key: stated.get(key, number("a mass >= 0 kg CO2e", low=0.0), None) for key in ("old", "new")}
    stated.finish()
    years = base.embodied[OLD].lifetime_s / SECONDS_PER_YEAR
    ratio_of_pue = number("a ratio of at least 1", low=1.0)
    share = number("a share in [0, 1]", low=0.0, high=1.0)
    ways = Ways[Setup](section)
    vary = ways.vary
    vary("lifetime_years", number("a number of years > 0", above=0.0), lambda x: _living(base, x))
    vary("prompt", integer(1), lambda x: base.simulated(prompt=x))
    vary("output", integer(2), lambda x: base.simulated(output=x))
    vary("pue", ratio_of_pue, lambda x: replace(base, pue=x))
    vary("old_share", share, lambda x: _charged(base, x), f"share of {study.names[OLD]}'s embodied")
    vary("embodied", text, lambda x: _by_method(base, x, kg, years, catalogue), "embodied method")
    vary("host", anything, lambda x: with_host(base, x, None, years, catalogue))
    for which in (OLD, NEW):
        label = f"{study.names[which]} timing.gemm_tile"
        vary("gemm_tile", integer(1), lambda x, w=which: _tiled(base, w, x), label)
    for part, names in (("power", _POWER), ("timing", _TIMING)):
        for which, name in product((OLD, NEW), names):
            label = f"{study.names[which]} {part}.{name}"
            vary(part, _FACTOR, lambda x, w=which, p=part, n=name: _scaled(base, w, p, n, x), label)
    section.finish()
    return ways.found


def _living(base: Setup, years: float) -> Setup:
    old, new = (replace(each, lifetime_s=years * SECONDS_PER_YEAR) for each in base.embodied)
    return replace(base, embodied=(old, new))


def _charged(base: Setup, share: float) -> Setup:
    old, new = base.embodied
    return replace(base, embodied=(in_second_life(old, old.lifetime_s / SECONDS_PER_YEAR, share), new))


def _by_method(base: Setup, method: str, kg: Mapping[str, float | None], years: float, catalogue: Catalogue) -> Setup:
    made = []
    for xpu, key in zip(base.xpus, ("old", "new")):
        stated: Any = method
        if method == "stated":
            if kg[key] is None:
                raise InputError(f"stated_kg.{key}", None, "a mass >= 0 kg CO2e, as uncertain.embodied asks for")
            stated = {"method": "fixed", "kg": kg[key], "boundary": "die+memory"}
        made.append(embodied(xpu, stated, years, catalogue))
    return replace(base, embodied=(made[OLD], made[NEW]))


def _scaled(base: Setup, which: int, part: str, name: str, factor: float) -> Setup:
    """A setup in which one coefficient of one xPU is `factor` times what its entry says."""
    xpus = list(base.xpus)
    xpus[which] = _with(xpus[which], part, name, factor)
    return base.simulated(xpus=(xpus[OLD], xpus[NEW]))


def _tiled(base: Setup, which: int, tokens: int) -> Setup:
    """A setup in which the GEMMs of one xPU take tokens in tiles of another size."""
    xpus = list(base.xpus)
    xpus[which] = replace(xpus[which], timing=replace(xpus[which].timing, gemm_tile=tokens))
    return base.simulated(xpus=(xpus[OLD], xpus[NEW]))


def _with(xpu: XPU, part: str, name: str, factor: float) -> XPU:
    whole = getattr(xpu, part)
    if part == "power":
        return replace(xpu, power=replace(whole, **{name: getattr(whole, name) * factor}))
    return replace(xpu, timing=replace(whole, **{name: getattr(whole, name) * factor}))


def moved(study: Study, ways: Sequence[Way[Setup]]) -> list[Moved]:
    """Every input at the smallest and the largest case, in both phases and all grids."""
    base = study.setups[ALONE]
    found = []
    for way, (corner, (model, batch)), phase, (grid, g) in product(
        ways, zip(("small", "large"), study.corners()), PHASES, study.grids.items()
    ):
        now = base.ratio(model, batch, phase, g)
        assert now is not None
        low, high = (setup.ratio(model, batch, phase, g) for setup in way.setups)
        found.append(Moved(way, f"{corner}: {model.id} at {batch}", phase, grid, now, (low, high)))
    return found


def tables(found: Sequence[Moved]) -> list[Table]:
    """What each input does in short, and each of its cases."""
    rows: list[list[Cell]] = []
    for name in dict.fromkeys(each.way.name for each in found):
        own = [each for each in found if each.way.name == name]
        widest = max(own, key=lambda each: each.spread)
        turned = sum(each.turns for each in own)
        rows.append([name, *own[0].way.ends, 100.0 * widest.spread, turned, len(own)])
    rows.sort(key=lambda row: -float(row[3] or 0.0))
    short = Table(
        "sensitivity",
        "One input at a time, GPU alone: how far the ratio of old to new moves, and how often the greener GPU changes",
        ("input", "low", "high", "most [%]", "turns", "of cases"),
        rows,
    )
    columns = ("input", "low", "high", "case", "phase", "grid", "ratio", "ratio_at_low", "ratio_at_high", "turns")
    every = [[e.way.name, *e.way.ends, e.corner, e.phase, e.grid, e.base, *e.ends, e.turns] for e in found]
    return [short, Table("sensitivity_cases", "One input at a time, every case", columns, every, shown=False)]


def tornado(study: Study, found: Sequence[Moved]) -> Chart:
    """Both corners and phases in the cleanest grid."""
    grid = min(study.grids, key=lambda name: study.grids[name])
    panels: dict[str, dict[str, tuple[float, float]]] = {}
    base = {}
    for each in found:
        if each.grid != grid:
            continue
        title = f"{each.phase}, {each.corner}"
        base[title] = each.base
        low, high = (each.base if end is None else end for end in each.ends)
        panels.setdefault(title, {})[each.way.name] = (low, high)
    old, new = study.names
    caption = (
        f"Carbon of a token on {old} over that on {new}, in {grid}, with one input at a time at its low (blue) and "
        f"high (orange) end, the widest ten; left of 1 (dotted) the {old} is the greener one."
    )
    return Chart("tornado", caption, "tornado", f"CO2e, {old} over {new}", "", panels, level=1.0, base=base)

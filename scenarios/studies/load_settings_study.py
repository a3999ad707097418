"""Settings of a node by load: what is tried, and which of them takes least energy within an SLO."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from scenarios.schema import COUNT, POSITIVE, SHARE, Section, anything, integer, list_of, number, text
from scenarios.studies.scenario_runs import Seen
from sim.errors import InputError


@dataclass(frozen=True, slots=True)
class Setting:
    """xPUs that share a layer, replicas, and the highest clock as a share."""

    tp: int
    replicas: int
    clock: float

    @property
    def words(self) -> str:
        """``2x4 at 0.8``: replicas, xPUs of each, clock."""
        return f"{self.replicas}x{self.tp} at {self.clock:g}"


@dataclass(frozen=True, slots=True)
class Study:
    """A preset, read.

    Attributes:
        title: of the study.
        scenarios: overrides of each variant; the first is the preset itself.
        rates: loads [1/s], rising; settings: what is tried, the first of which is what does not adapt.
        attainment: share of requests that must meet the SLO; published: the share of energy saved; within: how far off.
        seed, processes, search: as in the other studies.
    """

    title: str
    scenarios: Mapping[str, list[str]]
    rates: list[float]
    settings: list[Setting]
    attainment: float
    published: float
    within: float
    seed: int
    processes: int
    search: tuple[Path, ...]


#: What may change with the load (the clock; replicas and their parallelism; both), and which settings that leaves.
FREE: dict[str, Callable[[Setting, Setting], bool]] = {
    "clock": lambda s, base: (s.tp, s.replicas) == (base.tp, base.replicas),
    "instances": lambda s, base: s.clock == base.clock,
    "all": lambda s, base: True,
}
Runs = Mapping[tuple[float, Setting], Seen]


def least(study: Study, runs: Runs, rate: float, free: str) -> tuple[Setting, float] | None:
    """The setting that takes least energy within the SLO, of those that `free` leaves, and its Wh of 1,000 requests."""
    base = study.settings[0]
    held = {
        setting: runs[rate, setting].known("wh_per_1000_requests")
        for setting in study.settings
        if FREE[free](setting, base) and runs[rate, setting].known("slo_attainment") >= study.attainment
    }
    return min(held.items(), key=lambda item: item[1]) if held else None


def saving(study: Study, runs: Runs, rate: float, free: str) -> float | None:
    """Share of the energy that it saves of the setting that does not adapt; None where that misses the SLO."""
    base = runs[rate, study.settings[0]]
    found = least(study, runs, rate, free)
    if found is None or base.known("slo_attainment") < study.attainment:
        return None
    return 1.0 - found[1] / base.known("wh_per_1000_requests")


def mean_saving(study: Study, runs: Runs, free: str) -> float | None:
    """Over loads that count alike, of the energy of a second at each."""
    spent = base = 0.0
    for rate in study.rates:
        share = saving(study, runs, rate, free)
        if share is None:
            continue
        watts = runs[rate, study.settings[0]].known("wh_per_1000_requests") * rate
        base, spent = base + watts, spent + watts * (1.0 - share)
    return 1.0 - spent / base if base else None


def read(preset: Section, search: tuple[Path, ...]) -> Study:
    """The preset as objects."""
    preset.need("program", text)
    xpus, clocks = preset.need("xpus", COUNT), preset.need("clocks", list_of(SHARE))
    base = [f"workload.limit={preset.need('requests', integer(50))}", "workload.duration_s=null", "fleet=single"]
    base.append(f"fleet.engine.max_model_len={preset.need('max_model_len', COUNT)}")
    base += [f"fleet.{key}={preset.need(key, text)}" for key in ("model", "xpu", "host")]
    slo, lengths = preset.need("slo", text), preset.need("lengths", text)
    study = Study(
        preset.need("title", text),
        dict(_variants(preset.child("uncertain"), base, slo, lengths)),
        sorted(preset.need("rates", list_of(POSITIVE))),
        list(_tried(preset.need("tp", list_of(COUNT)), xpus, clocks)),
        preset.need("attainment", SHARE),
        preset.need("published", number("a share in (0, 1)", above=0.0, high=0.999)),
        preset.need("within", number("a share in (0, 1)", above=0.0, high=0.999)),
        preset.need("seed", integer()),
        preset.need("processes", COUNT),
        search,
    )
    preset.finish()
    if not study.rates or not study.settings:
        raise InputError("rates" if not study.rates else "tp", [], "a list of at least one, and tp within xpus")
    return study


def _tried(degrees: Sequence[int], xpus: int, clocks: Sequence[float]) -> Iterator[Setting]:
    """All settings of a node; the first has all xPUs in one replica or as few as may be, at the full clock."""
    for tp in sorted(degrees, reverse=True):
        for replicas, clock in product(range(xpus // tp, 0, -1), sorted({1.0, *clocks}, reverse=True)):
            yield Setting(tp, replicas, clock)


def _variants(section: Section, base: list[str], slo: str, lengths: str) -> Iterator[tuple[str, list[str]]]:
    def made(slo: str, lengths: str) -> list[str]:
        return ["workload=poisson", f"workload/lengths={lengths}", f"slo={slo}", *base]

    yield "as the preset is", made(slo, lengths)
    for name in section.get("slo", list_of(text), ()):
        yield f"slo={name}", made(name, lengths)
    for name in section.get("lengths", list_of(text), ()):
        yield f"lengths={name}", made(slo, name)
    for value in section.get("host", list_of(anything), ()):
        yield (
            f"host={'none' if value is None else value}",
            [
                *made(slo, lengths),
                f"fleet.host={'null' if value is None else value}",
            ],
        )
    section.finish()

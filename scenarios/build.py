"""A composed configuration to objects: the one place where plain values become fleets, workloads and routers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.economics import Terms
from scenarios.build_economics import terms_of
from scenarios.build_fleet import build_fleet, build_network_energy, check_pools
from scenarios.entries import Catalogue
from scenarios.progress import MODES
from scenarios.schema import Check, Section, boolean, integer, list_of, number, one_of, text
from scenarios.targets import accepts, check_targets, instantiate, locate
from sim.accounting.grid import BASES
from sim.errors import InputError
from sim.fleet.spec import Fleet
from sim.qoe import SLOClass
from sim.quality import QualityModel
from sim.results import Result
from sim.routing.base import Router
from sim.simulation import Progress, run
from sim.workload.base import Workload

GROUPS = ("workload", "slo", "fleet", "router", "quality", "network_energy")
SPEECH = ("first_audio_s", "tts_s")  #: keys of SLO classes that are spoken
OVERSIZE = ("error", "reject")
_POSITIVE: Check[float] = number("a number > 0, or null", above=0.0)


@dataclass(frozen=True, slots=True)
class Settings:
    """The keys of conf/config.yaml that are no group; their meaning is told there."""

    seed: int
    warmup_s: float
    horizon_s: float | None
    drain: bool
    oversize: str
    basis: str
    start_utc: str | None
    name: str | None
    out: Path | None
    timeline_bin_s: float | None
    spans: bool
    figures: bool
    report: bool
    progress: str
    plugins: tuple[str, ...]
    economics: Terms


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that one run needs.

    Attributes:
        settings, fleet, workload, router: what is simulated and what is kept.
        quality: what is known about answers, or None for nothing.
        inputs: data files that it reads.
        kinds: how many values of the entries in use are measured, published, derived or assumed.
    """

    settings: Settings
    fleet: Fleet
    workload: Workload
    router: Router
    quality: QualityModel | None
    inputs: tuple[Path, ...]
    kinds: Mapping[str, int]

    def run(self, progress: Callable[[Progress], None] | None = None) -> Result:
        """Simulate it.

        Raises:
            InputError: something in it does not go together.
        """
        settings = self.settings
        return run(
            self.fleet,
            self.workload,
            self.router,
            seed=settings.seed,
            warmup_s=settings.warmup_s,
            horizon_s=settings.horizon_s,
            drain=settings.drain,
            oversize=settings.oversize,
            timeline_bin_s=settings.timeline_bin_s,
            keep_spans=settings.spans,
            progress=progress,
            quality=self.quality,
        )


def build(config: Mapping[str, Any], search: Sequence[Path] = ()) -> Scenario:
    """Make everything that a run needs of a plain, resolved configuration.

    Args:
        config: mapping with the groups (`GROUPS`), and the settings.
        search: folders of the user's own, looked in before the packaged catalogue.

    Raises:
        InputError: anything in it that cannot be used; nothing has been built or run then.
    """
    top = Section(config, "")
    groups = {name: top.child(name) for name in GROUPS}
    settings = read_settings(top)
    check_targets(config, "", settings.plugins)
    catalogue = Catalogue(tuple(search))
    for group in groups.values():
        catalogue.note(group.values.get("about"))
    workload = build_workload(groups["workload"], groups["slo"], settings.plugins)
    router = _plugin(groups["router"], settings.plugins)
    quality = _plugin(groups["quality"], settings.plugins) if groups["quality"].values else None
    catalogue.note(groups["network_energy"].values)
    energy = build_network_energy(groups["network_energy"])
    fleet = build_fleet(groups["fleet"], catalogue, settings.basis, settings.start_utc, settings.plugins, energy)
    check_pools(fleet, router, groups["fleet"].key, single="sites" not in groups["fleet"].values)
    path = groups["workload"].values.get("path")
    inputs = (*(_files(Path(path)) if isinstance(path, str) else []), *catalogue.files)
    return Scenario(settings, fleet, workload, router, quality, inputs, dict(sorted(catalogue.kinds.items())))


def read_settings(top: Section) -> Settings:
    """Check every key that is no group, and refuse unknown ones."""
    out = top.get("out", text, None)
    settings = Settings(
        seed=top.get("seed", integer(), 0),
        warmup_s=top.get("warmup_s", number("a time >= 0 s", low=0.0), 0.0),
        horizon_s=top.get("horizon_s", _POSITIVE, None),
        drain=top.get("drain", boolean, True),
        oversize=top.get("oversize", one_of(*OVERSIZE), "error"),
        basis=top.get("basis", one_of(*BASES), "lca"),
        start_utc=top.get("start_utc", text, None),
        name=top.get("name", file_name, None),
        out=None if out is None else Path(out),
        timeline_bin_s=top.get("timeline_bin_s", _POSITIVE, None),
        spans=top.get("spans", boolean, False),
        figures=top.get("figures", boolean, True),
        report=top.get("report", boolean, True),
        progress=top.get("progress", one_of(*MODES), "auto"),
        plugins=tuple(top.get("plugins", list_of(_package), [])),
        economics=terms_of(top.child("economics")),
    )
    top.finish()
    if settings.horizon_s is not None and settings.warmup_s >= settings.horizon_s:
        raise InputError("warmup_s", settings.warmup_s, f"a time below horizon_s ({settings.horizon_s:g})")
    return settings


def build_workload(workload: Section, slo: Section, plugins: Collection[str]) -> Workload:
    """Make the workload, and give it the SLO classes; the weights of several classes become its mix."""
    slo.get("about", lambda key, value: value, None)
    rows = slo.need("classes", list_of(lambda key, value: Section(value, key)))
    slo.finish()
    if not rows:
        raise InputError(slo.path("classes"), [], "a list of at least one class")
    weights = [row.get("weight", number("a weight >= 0", low=0.0), 1.0) for row in rows]
    classes = tuple(_slo_class(row) for row in rows)
    names = [cls.name for cls in classes]
    if len(set(names)) < len(names):
        raise InputError(slo.path("classes"), names, "names that occur once")
    injected: dict[str, Any] = {"slo_classes": classes}
    cls = locate(workload.path("_target_"), workload.values.get("_target_"), plugins)
    if len(classes) > 1 and accepts(cls, "slo_mix"):
        injected["slo_mix"] = tuple(weights)
    made: Workload = instantiate(workload.values, workload.key, plugins, **injected)
    return made


def file_name(key: str, value: object) -> str:
    """A text that can be the name of a folder."""
    name = text(key, value)
    if name != Path(name).name or name in (".", ".."):
        raise InputError(key, value, "a name without slashes")
    return name


def _plugin(section: Section, plugins: Collection[str]) -> Any:
    locate(section.path("_target_"), section.values.get("_target_"), plugins)
    return instantiate(section.values, section.key, plugins)


def _slo_class(row: Section) -> SLOClass:
    bounds: dict[str, Any] = {"sentence_tokens": row.get("sentence_tokens", integer(), 0)}
    for name in ("ttft_s", "ttfv_s", "tpot_s", "e2e_s", "expected_ttft_s", "digest_tokens_per_s", *SPEECH):
        value = row.get(name, number("a number, or null"), None)
        if value is not None:
            bounds[name] = value
    name = row.need("name", text)
    row.finish()
    return SLOClass(name, **bounds)


def _files(path: Path) -> list[Path]:
    """What a workload reads: a file, or those of a folder."""
    return sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]


def _package(key: str, value: object) -> str:
    name = text(key, value)
    if not name.isidentifier():
        raise InputError(key, value, "the name of an importable top-level package")
    return name

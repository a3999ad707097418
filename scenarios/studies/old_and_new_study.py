"""What is compared of an old and a new GPU, and the preset that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from scenarios.build_accounts import embodied_of, host_of
from scenarios.build_site import intensity_of
from scenarios.entries import Catalogue
from scenarios.schema import COUNT, Section, anything, integer, list_of, number, text
from scenarios.studies import equal_batch as batches
from scenarios.studies.equal_batch import Around, Spent
from sim.accounting.embodied import Embodied
from sim.errors import InputError
from sim.hardware.model import Model
from sim.hardware.xpu import XPU

ALONE, WITH_HOST = "GPU alone", "with host"
OLD, NEW = 0, 1
_YEARS = number("a number of years > 0", above=0.0)


@dataclass(frozen=True, slots=True)
class Setup:
    """All that decides an answer, so that one thing at a time can be varied.

    Attributes:
        xpus: the old and the new one.
        precision, prompt, output, memory_share: see `equal_batch.pool_of`.
        pue: of the building.
        embodied: of each xPU.
        host_w, host_embodied: of the share of a host; 0 and None leave it out.
        search: further folders of entries.
        known: what was simulated already; a setup that differs in what is simulated starts afresh.
    """

    xpus: tuple[XPU, XPU]
    precision: str
    prompt: int
    output: int
    memory_share: float
    pue: float
    embodied: tuple[Embodied, Embodied]
    host_w: float = 0.0
    host_embodied: Embodied | None = None
    search: tuple[Path, ...] = ()
    known: dict[tuple[str, int, int], dict[str, Spent] | None] = field(default_factory=dict)

    def simulated(self, **changes: object) -> Setup:
        """A setup that has to be simulated anew."""
        return replace(self, known={}, **changes)  # type: ignore[arg-type]

    def spent(self, model: Model, which: int, batch: int) -> dict[str, Spent] | None:
        """What a token takes by phase on the old or the new xPU; None where its memory does not hold the batch."""
        key = (model.id, which, batch)
        if key not in self.known:
            tokens = (self.prompt, self.output)
            xpu = self.xpus[which]
            pool = batches.pool_of(model, xpu, self.precision, batch, tokens, self.memory_share, self.search)
            fits = batches.room(pool, sum(tokens)) >= batch
            self.known[key] = batches.spend(pool, batch, *tokens) if fits else None
        return self.known[key]

    def around(self, which: int) -> Around:
        """What is charged around an xPU."""
        parts = (self.embodied[which], self.host_embodied)
        return Around(tuple(part for part in parts if part is not None), self.host_w, self.pue)

    def grams(self, model: Model, which: int, batch: int, phase: str, g_per_kwh: float) -> tuple[float, float] | None:
        """Operational and embodied carbon of a token [g], or None where the batch does not fit."""
        spent = self.spent(model, which, batch)
        return None if spent is None else self.around(which).carbon_g(spent[phase], g_per_kwh)

    def ratio(self, model: Model, batch: int, phase: str, g_per_kwh: float) -> float | None:
        """Carbon of a token on the old xPU over that on the new one; None where either does not hold the batch."""
        found = [self.grams(model, which, batch, phase, g_per_kwh) for which in (OLD, NEW)]
        if found[OLD] is None or found[NEW] is None:
            return None
        return sum(found[OLD]) / sum(found[NEW])


@dataclass(frozen=True, slots=True)
class Study:
    """A preset, read: setups by boundary, and what is compared in them."""

    title: str
    setups: Mapping[str, Setup]
    models: Sequence[Model]
    sizes: Sequence[int]
    grids: Mapping[str, float]

    @property
    def names(self) -> tuple[str, str]:
        """Ids of the old and the new xPU."""
        old, new = self.setups[ALONE].xpus
        return old.id, new.id

    def corners(self) -> tuple[tuple[Model, int], tuple[Model, int]]:
        """The smallest model and batch, and the largest model with the largest batch of it, that both xPUs hold.

        Raises:
            InputError: there are none.
        """
        setup = self.setups[ALONE]
        held = [
            (model, batch)
            for model in self.models
            for batch in self.sizes
            if all(setup.spent(model, which, batch) for which in (OLD, NEW))
        ]
        if not held:
            raise InputError("memory_share", setup.memory_share, "a share with which both xPUs hold some batch")
        return held[0], held[-1]


def read(preset: Section, search: tuple[Path, ...]) -> Study:
    """The preset as objects; what is varied is left to be read."""
    preset.need("program", text)
    catalogue = Catalogue(search)
    xpus = tuple(catalogue.xpu(preset.need(key, text), key)[0] for key in ("old", "new"))
    models = [catalogue.model(name, "models") for name in preset.need("models", list_of(text))]
    sizes = preset.need("batches", list_of(COUNT))
    if not models or not sizes or sizes != sorted(set(sizes)):
        raise InputError(
            "batches" if models else "models", sizes if models else [], "a list that is not empty and rises"
        )
    grids = {
        name: intensity_of(Section({"grid": name}, ""), catalogue, "lca", None).at(0.0)
        for name in preset.need("grids", list_of(text))
    }
    if not grids:
        raise InputError("grids", [], "a list of at least one id")
    years = preset.need("lifetime_years", _YEARS)
    method = preset.need("embodied", text)
    alone = Setup(
        (xpus[OLD], xpus[NEW]),
        preset.need("precision", text),
        preset.need("prompt", COUNT),
        preset.need("output", integer(2)),
        preset.need("memory_share", number("a share in (0, 1]", above=0.0, high=1.0)),
        preset.need("pue", number("a ratio of at least 1", low=1.0)),
        (embodied(xpus[OLD], method, years, catalogue), embodied(xpus[NEW], method, years, catalogue)),
        search=search,
    )
    kg = preset.get("host_embodied_kg", number("a mass >= 0 kg CO2e", low=0.0), None)
    beside = with_host(alone, preset.get("host", anything, None), kg, years, catalogue)
    return Study(preset.need("title", text), {ALONE: alone, WITH_HOST: beside}, models, sizes, grids)


def embodied(xpu: XPU, method: object, years: float, catalogue: Catalogue) -> Embodied:
    """Embodied carbon of an xPU by a method of `hybridfleet run`."""
    stated = method if isinstance(method, Mapping) else {"method": method}
    section = Section({"embodied": {**stated, "lifetime_years": years}}, "")
    made = embodied_of(section, xpu, catalogue.entry("xpu", xpu.id, "xpu"))
    if made is None:
        raise InputError("embodied", method, f"a method that knows {xpu.id}: act | llmcarbon | published")
    return made


def with_host(setup: Setup, name: object, kg: float | None, years: float, catalogue: Catalogue) -> Setup:
    """The same with a share of a host around either xPU; its carbon is `kg`, or what its entry says."""
    if name is None:
        return replace(setup, host_w=0.0, host_embodied=None)
    given = {"type": name, "lifetime_years": years} | ({} if kg is None else {"embodied_kg": kg})
    host = host_of(Section({"host": given}, ""), catalogue)
    assert host is not None
    if host.embodied is None:
        raise InputError("host_embodied_kg", kg, f"a mass >= 0 kg CO2e: {name} does not know its own")
    return replace(setup, host_w=host.power_w, host_embodied=host.embodied)

"""Published training runs beside what the formulas give for the inputs that their authors state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.agreement import Section as Compared
from analysis.agreement import beside, pair_cells, percent
from scenarios.entries import Catalogue
from scenarios.schema import POSITIVE, Section, number
from sim.accounting.training_run import RunFootprint, embodied_per_xpu_hour, run_footprint
from sim.errors import InputError
from sim.hardware import catalogue
from sim.hardware.model import Model
from sim.hardware.training import training_flops
from sim.hardware.xpu import XPU
from sim.units import SECONDS_PER_HOUR

GROUP = "training"
ALL = ("all", "true")  #: what asks for every entry
WITHIN = 0.10  #: a case whose carbon or energy is further from the published figure is said to be off
#: what is compared: key of the published figure -> heading, factor to the unit shown
COMPARED = {
    "flops": ("arithmetic, 6 N D [1e21 FLOP]", 1e-21),
    "days": ("time [d]", 1.0),
    "energy_kwh": ("energy [MWh]", 1e-3),
    "operational_kg": ("operational carbon [t CO2e]", 1e-3),
    "total_kg": ("with idle and embodied [t CO2e]", 1e-3),
}


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """One run of the catalogue, and what comes of its inputs.

    Attributes:
        id, name: of its entry.
        model, xpu: what was trained, on what.
        footprint: from its xPU-hours, watts, PUE and intensity; None where PUE or intensity is not stated.
        flops: as published, or 6 N D.
        mfu: share of the peak that its hours mean, for 6 N D or the published FLOP.
        errors: COMPARED as `beside` sections, those that both sides know.
        intensity: g/kWh that the published figures imply where none is stated, PUE included; else None.
    """

    id: str
    name: str
    model: Model
    xpu: XPU
    footprint: RunFootprint | None
    xpu_hours: float
    flops: float
    mfu: float
    errors: dict[str, Compared]
    intensity: float | None


def read_runs(which: str, search: Sequence[Path] = ()) -> list[PublishedRun]:
    """The published runs of the catalogue: one by id, or all.

    Raises:
        InputError: there is no such run, or its entry cannot be used.
    """
    names = catalogue.list_entries(GROUP, search) if which in ALL else [which]
    return [_read(name, search) for name in names]


def _read(name: str, search: Sequence[Path]) -> PublishedRun:
    entries = Catalogue(tuple(search))
    entry = entries.entry(GROUP, name, GROUP)
    values, where = entry.values, str(entry.path)
    try:
        xpu, _ = entries.xpu(_text(values, "xpu"), "xpu")
        model = entries.model(_text(values, "model"), "model")
        peak = xpu.flops(_text(values, "precision"))
        flops = values.get("flops")
        if flops is None:
            flops = 6.0 * _positive(values, "params") * _positive(values, "tokens")
        hours = _hours(values, flops)
        footprint = _footprint(values, hours)
    except InputError as error:
        raise InputError(error.key, error.value, error.accepted, error.where or where) from error
    return PublishedRun(
        name,
        str(values.get("name", name)),
        model,
        xpu,
        footprint,
        hours,
        flops,
        flops / (hours * SECONDS_PER_HOUR * peak),
        _compare(values, model, hours, footprint),
        _implied(values, hours) if footprint is None else None,
    )


def _hours(values: Any, flops: float) -> float:
    """xPU-hours as stated, or the FLOP over the rate of each xPU."""
    if values.get("xpu_hours") is not None:
        return _positive(values, "xpu_hours")
    return flops / _positive(values, "flops_per_s") / SECONDS_PER_HOUR


def _footprint(values: Any, hours: float) -> RunFootprint | None:
    if values.get("pue") is None or values.get("intensity") is None:
        return None
    made = values.get("embodied")
    embodied = None if made is None else _embodied(Section(made, "embodied"))
    idle = values.get("idle_kwh")
    return run_footprint(hours, _positive(values, "power_w"), values["pue"], values["intensity"], idle, embodied)


def _embodied(made: Section) -> float:
    """Embodied carbon of an xPU-hour [g CO2e/h]."""
    mass = number("a mass >= 0 kg CO2e", low=0.0)
    years, share = number("a number of years > 0", above=0.0), number("a share in (0, 1]", above=0.0, high=1.0)
    grams = embodied_per_xpu_hour(
        made.need("xpu_kg", mass),
        made.need("server_kg", mass),
        made.need("xpus_per_server", POSITIVE),
        made.need("lifetime_years", years),
        made.need("utilization", share),
    )
    made.finish()
    return grams


def _implied(values: Any, hours: float) -> float | None:
    """Carbon per energy of the xPUs that a published figure means [g/kWh]: PUE x intensity."""
    kg = values.get("published", {}).get("operational_kg")
    return None if kg is None else kg * 1e6 / (hours * _positive(values, "power_w"))


def _compare(values: Any, model: Model, hours: float, footprint: RunFootprint | None) -> dict[str, Compared]:
    """Published figures beside ours; arithmetic is that of the catalogue's model, which counts its own parameters."""
    ours: dict[str, float | None] = {"flops": training_flops(model, _positive(values, "tokens"), 1, attention=False)}
    if values.get("xpus") is not None:
        ours["days"] = hours / 24.0 / _positive(values, "xpus")
    if footprint is not None:
        ours["energy_kwh"] = footprint.energy_kwh
        ours["operational_kg"] = footprint.operational_g / 1e3
        ours["total_kg"] = None if footprint.total_g is None else footprint.total_g / 1e3
    published = values.get("published", {})
    known = [key for key in COMPARED if ours.get(key) is not None and published.get(key) is not None]
    return {key: beside(published[key], ours[key]) for key in known}


def _positive(values: Any, key: str) -> float:
    return POSITIVE(key, values.get(key))


def _text(values: Any, key: str) -> str:
    if not isinstance(values.get(key), str):
        raise InputError(key, values.get(key), "a text: every training run names its model, xpu and precision")
    return str(values[key])


def runs_table(runs: Sequence[PublishedRun]) -> tuple[list[str], list[list[str]], int]:
    """A row a published figure: itself, ours and the error, beside the MFU that the run's hours mean."""
    rows = []
    for run in runs:
        first = [run.name, run.xpu.id, f"{run.xpu_hours:,.0f} h, MFU {100.0 * run.mfu:.1f} %"]
        for key, pair in run.errors.items():
            label, scale = COMPARED[key]
            rows.append([*first, label, *pair_cells(pair, scale)])
            first = ["", "", ""]
        if not run.errors:
            rows.append([*first, "nothing to compare", "–", "–", "–"])
        rows.append([])
    return ["run", "xPU", "xPU time", "quantity", "published", "here", "error"], rows[:-1], 4


def runs_notes(runs: Sequence[PublishedRun]) -> list[str]:
    """What a reader of the numbers must know."""
    notes = [
        "From the inputs that each run's authors state; `hybridfleet list trainings ID` shows them with sources.",
        "MFU: 6 N D (or the published FLOP) over xPU-hours at the dense 16-bit peak; hours may include restarts.",
    ]
    for run in runs:
        for key, pair in run.errors.items():
            if pair["error"] is not None and abs(pair["error"]) > WITHIN:
                notes.append(f"{run.name}: {COMPARED[key][0]} is {percent(pair['error'])} off.")
        if run.intensity is not None:
            notes.append(
                f"{run.name}: PUE and intensity are not stated, so this is no test; its figures imply "
                f"PUE x intensity = {run.intensity:.0f} g/kWh."
            )
    return notes


def runs_json(runs: Sequence[PublishedRun]) -> Compared:
    """The same for programs."""
    return {
        "within": WITHIN,
        "runs": [
            {
                "id": run.id,
                "model": run.model.id,
                "xpu": run.xpu.id,
                "xpu_hours": run.xpu_hours,
                "flops": run.flops,
                "mfu": run.mfu,
                **run.errors,
                "implied_pue_x_g_per_kwh": run.intensity,
            }
            for run in runs
        ],
    }

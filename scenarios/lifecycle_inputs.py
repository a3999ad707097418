"""What `hybridfleet lifecycle` is asked: an entry of conf/lifecycle over the default one, and the user's changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scenarios.entries import Catalogue
from scenarios.schema import POSITIVE, Check, Section, number, text
from scenarios.size_inputs import SizeInputs, dotted, put, read_inputs
from sim.accounting.lifecycle import QUANTITIES, Amount, Interval, interval
from sim.errors import InputError
from sim.hardware import catalogue
from sim.units import JOULES_PER_KWH

GROUP = "lifecycle"
OWN_KEYS = ("lifecycle", "model", "out", "slo")
GIVEN = {"energy_kwh": ("energy_j", JOULES_PER_KWH), "operational_kg": ("operational_g", 1e3)} | {
    "embodied_kg": ("embodied_g", 1e3),
    "usd": ("usd", 1.0),
}  #: key of conf/lifecycle -> quantity of an amount, and its units in SI ones


@dataclass(frozen=True, slots=True)
class LifeInputs:
    """Everything that is asked; see conf/lifecycle/default.yaml.

    Attributes:
        id, values: the entry, and its keys with the user's changes.
        section: the same, to be read by whoever builds the stages.
        years, growth, tokens_per_day, tokens_per_answer: of the service; None: as simulated.
        given: amounts of stages that are known: training, tuning, inference (of 1e6 tokens).
        published_answers: after how many answers the authors of an entry say that inference overtakes training.
        model: id, or None where nothing has to be computed.
        sizing: what `hybridfleet size` would be asked, or None.
        published_tokens: training run whose number of tokens is taken, or None.
    """

    id: str
    values: Mapping[str, Any]
    section: Section
    years: float
    growth: float
    tokens_per_day: float | None
    tokens_per_answer: float | None
    given: Mapping[str, Amount]
    published_answers: float | None
    model: str | None
    sizing: SizeInputs | None
    published_tokens: str | None


def read_life(given: Mapping[str, Any], search: Sequence[Path] = ()) -> LifeInputs:
    """Check what the command line gives.

    Args:
        given: dotted keys of conf/lifecycle, of conf/sizing, of a pool and of its place; `model`, `lifecycle`, `slo`.
        search: further folders of the catalogue.

    Raises:
        InputError: a key or value cannot be used.
    """
    entries = Catalogue(tuple(search))
    name = text("lifecycle", given.get("lifecycle", "default"))
    values = deepcopy(dict(entries.entry(GROUP, "default", GROUP).values))
    own = tuple(values)
    _merge(values, entries.entry(GROUP, name, GROUP).values)
    others: dict[str, Any] = {}
    for key, value in given.items():
        if key.split(".")[0] in own:
            put(values, key, value, OWN_KEYS, "lifecycles default")
        elif key not in OWN_KEYS:
            others[key] = value
    top = Section(values, "")
    service = top.child("service")
    amounts = _given(top.child("given"))
    model, sizing, published = _sizing(given, others, amounts, search, dotted(values))
    return LifeInputs(
        name,
        values,
        top,
        service.need("years", number("a number of years in (0, 100]", above=0.0, high=100.0)),
        service.need("growth_per_year", number("a share > -1, at most 10", above=-1.0, high=10.0)),
        service.get("tokens_per_day", POSITIVE, None),
        service.get("tokens_per_answer", POSITIVE, None),
        amounts,
        top.child("published").get("answers", POSITIVE, None),
        model,
        sizing,
        published,
    )


def triple(low: float = 0.0) -> Check[Interval]:
    """A number, or three in order: low, central, high; none below `low`."""

    def check(key: str, value: object) -> Interval:
        accepted = f"a number >= {low:g}, or three in order: [low, central, high]"
        parts = value if isinstance(value, list | tuple) else [value]
        if len(parts) not in (1, 3):
            raise InputError(key, value, accepted)
        checked = [number(accepted, low=low)(key, part) for part in parts]
        if checked != sorted(checked):
            raise InputError(key, value, accepted)
        return interval(*checked)

    return check


def _merge(values: dict[str, Any], over: Mapping[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            _merge(values[name], value)
        else:
            values[name] = value


def _given(section: Section) -> dict[str, Amount]:
    """Amounts of those stages of which at least one quantity is known; inference by the token."""
    amounts = {}
    for name in section.values:
        stage = section.child(name)
        known = {key: stage.get(key, triple(), None) for key in GIVEN}
        stage.finish()
        if any(value is not None for value in known.values()):
            scale = 1e-6 if name == "inference" else 1.0
            found = {GIVEN[key][0]: value * GIVEN[key][1] * scale for key, value in known.items() if value is not None}
            amounts[name] = Amount(*(found.get(quantity) for quantity in QUANTITIES))
    return amounts


def _sizing(
    given: Mapping[str, Any],
    others: dict[str, Any],
    amounts: Mapping[str, Amount],
    search: Sequence[Path],
    known: Sequence[str],
) -> tuple[str | None, SizeInputs | None, str | None]:
    """The model, what is asked of `hybridfleet size`, and the training run whose tokens are taken."""
    computed = [name for name in ("training", "tuning", "inference") if name not in amounts]
    if not computed:
        for key in ("model", "slo", *others):
            if key in given:
                raise InputError(key, given[key], "nothing: all stages are given, so that none is computed")
        return None, None, None
    for key, what in (("model", "models"), ("xpu", "xpus")):
        if key not in given:
            accepted = f"one of `hybridfleet list {what}`, to compute {', '.join(computed)}"
            raise InputError(key, None, accepted)
    model = Catalogue(tuple(search)).model(text("model", given["model"]), "model")
    sizing = read_inputs(others, search, text("slo", given.get("slo", "chat_relaxed")), known)
    published = None
    if not any(key in others for key in ("training.tokens", "training.tokens_per_param")):
        sizing, published = _with_published_tokens(model.id, sizing, search)
    return model.id, sizing, published


def _with_published_tokens(model: str, sizing: SizeInputs, search: Sequence[Path]) -> tuple[SizeInputs, str | None]:
    for name in catalogue.list_entries("training", search):
        values = catalogue.load_entry("training", name, search).values
        if values.get("model") == model and isinstance(values.get("tokens"), int | float):
            job = replace(sizing.jobs["training"], tokens=float(values["tokens"]))
            return replace(sizing, jobs={**sizing.jobs, "training": job}), name
    return sizing, None

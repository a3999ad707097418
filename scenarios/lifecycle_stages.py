"""The stages of a model's life, from what `hybridfleet size` computes, what is given, and conf/lifecycle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from scenarios.lifecycle_inputs import LifeInputs, triple
from scenarios.schema import Section, number, one_of
from scenarios.size_inference import ServingPlan, mean_lengths, plan_serving
from scenarios.size_inputs import SizeInputs, place_of
from scenarios.size_training import JobPlan, plan_job
from sim.accounting.cost import Rent
from sim.accounting.job import JobRates
from sim.accounting.lifecycle import (
    NOTHING,
    Amount,
    Interval,
    Service,
    Stage,
    interval,
    repeats,
    whole_life,
)
from sim.errors import InputError
from sim.fleet.spec import Pool
from sim.units import JOULES_PER_KWH, SECONDS_PER_YEAR

TRAINING = ("training", "tuning", "retraining")  #: stages that inference is compared with
_DAY_S = 86400.0
_DAYS = 365.0
_TB = 1e12
_METHODS = ("lora", "fine_tuning")
_ZERO = np.zeros(3)


@dataclass(frozen=True, slots=True)
class Life:
    """A model's life.

    Attributes:
        stages: all of them, by name.
        service: tokens that are served.
        tokens_per_answer: mean output tokens of a request; None where not known.
        jobs: plans that were computed: training, and lora or fine_tuning.
        serving: the plan of inference, or None where it is given.
    """

    stages: Mapping[str, Stage]
    service: Service
    tokens_per_answer: float | None
    jobs: Mapping[str, JobPlan]
    serving: ServingPlan | None

    @property
    def training(self) -> list[Stage]:
        """Stages that inference is compared with."""
        return [self.stages[name] for name in TRAINING]


@dataclass(frozen=True, slots=True)
class _Computed:
    """What `hybridfleet size` knows, and the tokens of pre-training; all None where everything is given."""

    tokens: float | None
    jobs: Mapping[str, JobPlan]
    serving: ServingPlan | None
    rates: JobRates | None
    rented: bool


def live(inputs: LifeInputs) -> Life:
    """Compute every stage.

    Raises:
        InputError: a value cannot be used, or a stage cannot be computed.
    """
    top = inputs.section
    method = top.child("tuning").need("method", one_of(*_METHODS))
    found = _compute(inputs, method)
    answer = inputs.tokens_per_answer or (found.serving.output if found.serving else None)
    service = Service(inputs.years * _DAYS, _tokens_per_day(inputs, found.serving), inputs.growth)
    final = inputs.given.get("training") or _job(found.jobs["training"])
    stages = [
        Stage("training", final.times(1.0 + top.child("trials").need("share", triple()))),
        _tuning(inputs.given.get("tuning") or _job(found.jobs[method]), top.child("tuning"), service),
        _retraining(final, top.child("retraining"), service),
        _data(top.child("data"), found),
        _labour(top.child("labour")),
        Stage("inference", per_token=inputs.given.get("inference") or _per_token(found)),
    ]
    stages.append(_end(top.child("decommissioning"), whole_life(stages, service), found.rented))
    return Life({stage.name: stage for stage in stages}, service, answer, found.jobs, found.serving)


def _compute(inputs: LifeInputs, method: str) -> _Computed:
    sizing = inputs.sizing
    if sizing is None or inputs.model is None:
        return _Computed(None, {}, None, None, False)
    pool, site, rates, price = place_of(inputs.model, sizing)
    needed = [job for name, job in (("training", "training"), ("tuning", method)) if name not in inputs.given]
    jobs = {job: plan_job(sizing.jobs[job], pool, rates, price, sizing) for job in needed}
    serving = None
    if "inference" not in inputs.given:
        serving = plan_serving(pool, site, price, _at_rate(pool, sizing, inputs.tokens_per_day))
    ask = sizing.jobs["training"]
    tokens = ask.tokens or (ask.tokens_per_param or 0.0) * pool.model.params_active
    return _Computed(tokens, jobs, serving, rates, isinstance(pool.cost, Rent))


def _at_rate(pool: Pool, sizing: SizeInputs, tokens_per_day: float | None) -> SizeInputs:
    """The load of inference as the tokens of a day come to."""
    if tokens_per_day is None:
        return sizing
    _, output, oversize = mean_lengths(pool, sizing)
    rate = tokens_per_day / _DAY_S / (output * (1.0 - oversize))
    return replace(sizing, inference=replace(sizing.inference, rate=rate))


def _tokens_per_day(inputs: LifeInputs, serving: ServingPlan | None) -> float:
    if inputs.tokens_per_day is not None:
        return inputs.tokens_per_day
    if serving is None:
        raise InputError("service.tokens_per_day", None, "a number > 0, as inference is given and not computed")
    return _tokens_per_s(serving) * _DAY_S


def _tokens_per_s(serving: ServingPlan) -> float:
    return serving.rate * (1.0 - serving.oversize) * serving.output


def _point(value: float | None) -> Interval | None:
    """A number as an interval; NaN, which accounts have for what is unknown, as None."""
    return None if value is None or math.isnan(value) else interval(value)


def _job(plan: JobPlan) -> Amount:
    account = plan.account
    embodied = None if account.embodied_g is None else interval(*account.embodied_g)
    return Amount(
        _point(account.energy_j), _point(account.operational_g), embodied, _point(account.usd), _point(account.xpu_s)
    )


def _per_token(found: _Computed) -> Amount:
    """What an output token takes; embodied carbon has the interval of the hardware."""
    serving, rates = found.serving, found.rates
    assert serving is not None
    embodied = _point(serving.embodied_g)
    if embodied is not None and rates is not None and rates.embodied_g_per_xpu_s is not None:
        low, central, high = rates.embodied_g_per_xpu_s
        embodied = embodied * (interval(low, central, high) / central if central else 1.0)
    return Amount(
        _point(serving.joules),
        _point(serving.operational_g),
        embodied,
        _point(serving.usd),
        _point(serving.xpus / _tokens_per_s(serving)),
    )


def _tuning(run: Amount, section: Section, service: Service) -> Stage:
    runs = run.times(section.need("runs", triple()))
    return Stage("tuning", runs, runs, repeats(_period(section), service.days))


def _retraining(final: Amount, section: Section, service: Service) -> Stage:
    again = final.times(section.need("share", triple()))
    return Stage("retraining", each=again, days=repeats(_period(section), service.days))


def _period(section: Section) -> float | None:
    """Days from one run to the next: at least one."""
    return section.get("period_days", number("at least 1 day, or null for never", low=1.0), None)


def _data(section: Section, found: _Computed) -> Stage:
    licence = section.get("licence_usd", triple(), None)
    stored = section.get("storage_tb", triple(), None)
    a_token = section.get("bytes_per_token", triple(), None)
    if stored is None and a_token is not None and found.tokens is not None:
        stored = a_token * found.tokens / _TB
    once = NOTHING._replace(usd=licence)
    if stored is None:
        return Stage("data", once, per_day=Amount(None, None, None, None, _ZERO))
    if not stored.any():
        return Stage("data", once)
    watts, usd, made = (
        None if value is None else value * stored
        for value in (
            section.get(key, triple(), None) for key in ("w_per_tb", "usd_per_tb_month", "embodied_kg_per_tb_year")
        )
    )
    return Stage("data", once, per_day=_storage(watts, usd, made, found.rates))


def _storage(watts: Interval | None, usd: Interval | None, kg: Interval | None, rates: JobRates | None) -> Amount:
    """A day of what is stored: its power [W], price [USD/month] and carbon of making it [kg/year]."""
    energy = None if watts is None or rates is None else watts * rates.pue * _DAY_S
    grams = None
    if energy is not None and rates is not None:
        mean = rates.intensity.integral(0.0, SECONDS_PER_YEAR) / SECONDS_PER_YEAR
        grams = None if math.isnan(mean) else energy / JOULES_PER_KWH * mean
    made = None if kg is None else kg * 1e3 / _DAYS
    return Amount(energy, grams, made, None if usd is None else usd * 12.0 / _DAYS, _ZERO)


def _labour(section: Section) -> Stage:
    before, during = (section.get(key, triple(), None) for key in ("person_years", "persons"))
    usd, kwh, kg = (section.get(f"{key}_per_person_year", triple(), None) for key in ("usd", "kwh", "kg"))
    year = Amount(
        None if kwh is None else kwh * JOULES_PER_KWH, None if kg is None else kg * 1e3, _ZERO, usd, _ZERO
    )  # of one person
    return Stage("labour", _people(year, before), per_day=_people(year.times(1.0 / _DAYS), during))


def _people(year: Amount, persons: Interval | None) -> Amount:
    """What so many people take; of an unknown number, what each takes none of is still none."""
    if persons is not None:
        return year.times(persons)
    return Amount(*(value if value is not None and not value.any() else None for value in year))


def _end(section: Section, total: Amount, rented: bool) -> Stage:
    """The end of all hardware, by the carbon that went into it and the share of its life that was used."""
    share, usd, kg = (section.get(key, triple(), None) for key in ("embodied_share", "usd_per_xpu", "kg_per_xpu"))
    life_s = SECONDS_PER_YEAR * section.need("xpu_years", number("a number of years > 0", above=0.0))
    xpus = None if total.xpu_s is None else total.xpu_s / life_s
    price = None if usd is None or xpus is None else usd * xpus
    if kg is not None:
        grams = None if xpus is None else kg * 1e3 * xpus
    else:
        grams = None if share is None or total.embodied_g is None else share * total.embodied_g
    if rented:
        price = _ZERO  # the rent pays for it
    return Stage("decommissioning", at_end=Amount(_ZERO, _ZERO, grams, price, _ZERO))

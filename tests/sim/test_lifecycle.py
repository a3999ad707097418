"""A model's life: hand-checked sums, growth, and the day on which inference overtakes training."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim.accounting.lifecycle import (
    CARBON,
    CENTRAL,
    HIGH,
    LOW,
    NOTHING,
    Amount,
    Service,
    Stage,
    interval,
    overtaking,
    repeats,
    spent,
    whole_life,
)
from sim.errors import InputError

CENTRALS = (CENTRAL, CENTRAL)


def joules(low: float, central: float | None = None, high: float | None = None) -> Amount:
    return NOTHING._replace(energy_j=interval(low, central, high))


def test_a_life_by_hand() -> None:
    """100 J before, 10 J on days 4 and 8, 2 J a day, 0.5 J a token of which 10 come a day, 7 J at the end."""
    stages = [
        Stage("training", joules(100.0)),
        Stage("retraining", each=joules(10.0), days=repeats(4.0, 10.0)),
        Stage("data", per_day=joules(2.0)),
        Stage("inference", per_token=joules(0.5)),
        Stage("end", at_end=joules(7.0)),
    ]
    service = Service(10.0, 10.0)
    parts = [float(spent(stage, 10.0, service).energy_j[CENTRAL]) for stage in stages]  # type: ignore[index]
    assert parts == [100.0, 20.0, 20.0, 50.0, 7.0]
    assert whole_life(stages, service).energy_j == pytest.approx(np.full(3, 197.0))
    early = [float(spent(stage, 5.0, service).energy_j[CENTRAL]) for stage in stages]  # type: ignore[index]
    assert early == [100.0, 10.0, 10.0, 25.0, 0.0]


def test_growth_is_compound() -> None:
    service = Service(3650.0, 100.0, 1.0)
    assert service.tokens(730.0) == pytest.approx(3.0 * service.tokens(365.0))
    assert service.tokens(365.0) == pytest.approx(100.0 * 365.0 / math.log(2.0))
    assert service.day_of(service.tokens(500.0)) == pytest.approx(500.0)
    shrinking = Service(3650.0, 100.0, -0.5)
    assert shrinking.day_of(shrinking.tokens(500.0)) == pytest.approx(500.0)
    assert shrinking.day_of(100.0 * 365.0 / math.log(2.0) * 1.01) == math.inf  # all that will ever be served, and more


def test_inference_overtakes_on_the_day_that_the_sums_meet() -> None:
    inference = Stage("inference", per_token=joules(1.0, 2.0, 4.0))
    training = [Stage("training", joules(50.0, 100.0, 200.0))]
    service = Service(100.0, 1.0)
    assert overtaking(inference, training, "energy_j", service, CENTRALS) == 50.0
    assert overtaking(inference, training, "energy_j", service, (HIGH, LOW)) == 12.5
    assert overtaking(inference, training, "energy_j", service, (LOW, HIGH)) == math.inf
    assert overtaking(inference, training, "energy_j", Service(50.0, 1.0), CENTRALS) == 50.0


def test_retraining_puts_it_off() -> None:
    """1 J a day against 50 J and 20 J more on days 40 and 80: at 40 the score is 40:70, so it takes until day 70."""
    inference = Stage("inference", per_token=joules(1.0))
    training = [Stage("training", joules(50.0)), Stage("retraining", each=joules(20.0), days=repeats(40.0, 120.0))]
    assert overtaking(inference, training, "energy_j", Service(120.0, 1.0), CENTRALS) == 70.0
    often = [training[0], Stage("retraining", each=joules(20.0), days=repeats(10.0, 120.0))]
    assert overtaking(inference, often, "energy_j", Service(120.0, 1.0), CENTRALS) == math.inf


def test_the_unknown_spreads() -> None:
    known, unknown = joules(1.0), NOTHING._replace(embodied_g=None)
    total = whole_life([Stage("a", known), Stage("b", unknown)], Service(1.0, 1.0))
    assert total.energy_j is not None
    assert total.embodied_g is None
    assert total.of(CARBON) is None
    inference = Stage("inference", per_token=known)
    assert overtaking(inference, [Stage("a", unknown)], CARBON, Service(1.0, 1.0), CENTRALS) is None


def test_nothing_to_overtake_is_overtaken_at_once() -> None:
    inference = Stage("inference", per_token=joules(1.0))
    assert overtaking(inference, [Stage("training")], "energy_j", Service(9.0, 1.0), CENTRALS) == 0.0


def test_the_last_day_has_no_retraining() -> None:
    assert repeats(365.0, 1095.0) == (365.0, 730.0)
    assert repeats(0.1, 0.3) == pytest.approx((0.1, 0.2))
    assert repeats(None, 10.0) == ()
    with pytest.raises(InputError, match="period_days"):
        repeats(0.0, 10.0)

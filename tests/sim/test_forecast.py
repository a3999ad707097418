"""Forecasts of carbon intensity: what was published, what errs more the farther ahead, and the truth for the oracle."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from sim import Constant, InputError
from sim.accounting.forecast import FORECASTS, Noisy, Oracle, Persistence, forecast_model
from sim.accounting.grid import HourlySignal
from sim.rng import Streams

HOUR = 3600.0
HOURS = HourlySignal([float(100 + hour) for hour in range(48)], datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01", "lca")


def test_persistence_knows_what_was_published_an_hour_ago():
    forecast = Persistence().of("site", HOURS, Streams(0))
    assert forecast.at(5.5 * HOUR, 5.5 * HOUR) == HOURS.at(4.5 * HOUR) != HOURS.at(5.5 * HOUR)
    assert forecast.at(5.5 * HOUR, 40 * HOUR) == HOURS.at(4.5 * HOUR)
    assert forecast.at(0.0, 0.0) == HOURS.at(0.0)
    assert Persistence(2 * HOUR).of("site", HOURS, Streams(0)).at(5 * HOUR, 5 * HOUR) == HOURS.at(3 * HOUR)


def test_the_oracle_knows_what_will_be():
    forecast = Oracle().of("site", HOURS, Streams(0))
    assert [forecast.at(0.0, hour * HOUR) for hour in range(48)] == [100.0 + hour for hour in range(48)]


def test_noise_has_mean_one_and_grows_with_the_lead():
    flat = Constant(200.0)

    def logs(lead_h):
        return np.array([
            math.log(Noisy(0.1).of(f"site {i}", flat, Streams(1)).at(0.0, lead_h * HOUR) / 200.0) for i in range(2000)
        ])  # fmt: skip

    for lead_h in (0, 3, 24):
        sigma = 0.1 * math.sqrt(lead_h + 1)
        errors = logs(lead_h)
        assert errors.std() == pytest.approx(sigma, rel=0.08)
        assert np.exp(errors).mean() == pytest.approx(1.0, abs=4 * sigma / math.sqrt(2000))


def test_noise_of_an_hour_keeps_its_sign_and_asking_again_changes_nothing():
    forecast = Noisy(0.2).of("site", HOURS, Streams(3))
    far, near = forecast.at(0.0, 20 * HOUR) / 120.0, forecast.at(19 * HOUR, 20 * HOUR) / 120.0
    assert abs(math.log(near)) < abs(math.log(far))
    assert forecast.at(0.0, 20 * HOUR) / 120.0 == far
    other = Noisy(0.2).of("site", HOURS, Streams(3))
    assert other.at(0.0, 20 * HOUR) / 120.0 == far  # whatever was asked before
    assert Noisy(0.2).of("elsewhere", HOURS, Streams(3)).at(0.0, 20 * HOUR) / 120.0 != far


def test_hours_beyond_the_data_are_unknown():
    assert math.isnan(Oracle().of("site", HOURS, Streams(0)).at(0.0, 48 * HOUR))
    assert math.isnan(Noisy().of("site", HOURS, Streams(0)).at(0.0, 48 * HOUR))


def test_names_of_forecasts():
    assert [type(forecast_model("f", name)) for name in FORECASTS] == [Persistence, Noisy, Oracle]
    for wrong in ("tomorrow", 3, None, Oracle):
        with pytest.raises(InputError, match=r"persistence \| noisy \| oracle"):
            forecast_model("router.forecast", wrong)
    with pytest.raises(InputError, match=r"forecast\.sigma"):
        Noisy(-0.1)
    with pytest.raises(InputError, match=r"forecast\.lag_s"):
        Persistence(-1.0)

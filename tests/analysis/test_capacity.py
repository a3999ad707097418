"""Whether a backlog grows, and what a rate over seeds amounts to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from analysis.capacity import MOST_LEFT, left, over_seeds


def columns(arrival: Any, stay: Any) -> dict[str, Any]:
    arrival, stay = np.asarray(arrival, dtype=float), np.asarray(stay, dtype=float)
    return {"arrival_s": arrival, "e2e_s": stay, "uplink_s": 0.1 * stay, "queue_s": 0.5 * stay}


def test_a_fleet_that_keeps_up_leaves_nothing() -> None:
    arrival = np.arange(0.0, 300.0, 0.1)
    found = left(columns(arrival, np.full(3000, 2.05)), 0.0, 300.0)
    assert found["grown"] == pytest.approx(0.0, abs=0.3)
    assert found["came"] == 2000.0
    assert found["waiting"] == 12.0  # they came within the last 1.23 s
    assert found["inside"] == pytest.approx(20.5, rel=0.01)


def test_one_that_serves_nine_of_ten_leaves_one() -> None:
    # served every 0.1 / 0.9 s, so that the n-th waits for n times the difference
    arrival = np.arange(0.0, 300.0, 0.1)
    row = {**left(columns(arrival, np.arange(3000) * (0.1 / 0.9 - 0.1)), 60.0, 300.0), "requests": 3000.0}
    found = over_seeds(10.0, 10.0, 10.0, [{**row, "slo_attainment": 1.0}], steady=True)
    assert found.left == pytest.approx(0.1, rel=0.02)
    assert found.left > found.allowed > MOST_LEFT
    assert not found.holds(0.9)


def test_requests_that_do_not_complete_are_no_backlog() -> None:
    arrival = np.arange(0.0, 300.0, 0.1)
    found = left(columns(arrival, np.full(3000, np.nan)), 0.0, 300.0)
    assert (found["grown"], found["waiting"], found["inside"]) == (0.0, 0.0, 0.0)
    assert set(left(columns([], []), 0.0, 0.0).values()) == {None}


def test_seeds_are_averaged_and_unknown_stays_unknown() -> None:
    common = {"requests": 1000.0, "grown": 30.0, "came": 500.0, "waiting": 4.0, "inside": 8.0, "mean_w": 10.0}
    rows = [
        {**common, "slo_attainment": 0.8, "peak_w": 12.0, "usd_per_hour": 2.0},
        {**common, "slo_attainment": 1.0, "peak_w": 14.0, "usd_per_hour": None},
    ]
    found = over_seeds(2.0, 4.0, 4.0, rows, steady=True)
    assert (found.attainment, found.left, found.peak_w, found.mean("mean_w")) == (0.9, 0.06, 14.0, 10.0)
    assert found.allowed == pytest.approx(0.01 + 2 * np.sqrt(2 * 16.0) / 1000)
    assert found.mean("usd_per_hour") is None
    assert not found.holds(0.9)  # within the SLO, but the backlog grows
    other = over_seeds(2.0, 4.0, 4.0, rows, steady=False)
    assert other.left == 0.004
    assert other.holds(0.9)
    assert not other.holds(0.95)

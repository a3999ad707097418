"""Policies that go by a forecast: work waits for clean hours, or is less in dirty ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim import Constant, Fleet, InputError, Site, run
from sim.accounting.forecast import Noisy
from sim.quality import QualityModel
from sim.results import Result
from sim.routing import CarbonBrevity, Cascade, CloudOnly, EdgeOnly, LeastOutstanding, TemporalShift
from sim.workload import Fixed, Poisson, SyntheticWorkload
from tests.sim.conftest import StepSignal, fleet_of, pool, simulate, xpu

HOUR = 3600.0
DAY = [330.0, 325.0, 320.0, 320.0, 325.0, 330.0, 320.0, 280.0, 220.0, 160.0, 120.0, 100.0]
DAY += [90.0, 90.0, 100.0, 130.0, 190.0, 270.0, 350.0, 390.0, 400.0, 385.0, 360.0, 340.0]
DIRTY = 200.0


def day_fleet() -> Fleet:
    return fleet_of(pool(), intensity=StepSignal(HOUR, DAY, 80 * HOUR))


def day(deadline_s: float | None = 8 * HOUR) -> SyntheticWorkload:
    deadlines = None if deadline_s is None else {"seconds": deadline_s}
    return SyntheticWorkload(Poisson(0.005), Fixed(40, 30), duration_s=24 * HOUR, deadlines=deadlines)


def grams(result: Result) -> float:
    return float(result.requests["carbon_operational_g"].sum())


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_deferrable_work_emits_less_and_is_in_time() -> None:
    at_once = run(day_fleet(), day(), LeastOutstanding(), seed=1)
    shifted = {
        name: run(day_fleet(), day(), TemporalShift(LeastOutstanding(), name), seed=1) for name in ("noisy", "oracle")
    }
    for result in shifted.values():
        assert (result.requests["status"] == 0).all()
        assert result.requests["e2e_s"].max() <= 8 * HOUR
        assert result.requests["energy_j"].sum() == pytest.approx(at_once.requests["energy_j"].sum(), rel=0.05)
    assert grams(shifted["oracle"]) <= grams(shifted["noisy"]) < 0.75 * grams(at_once)
    # by hand: the mean over arrivals of the cleanest of this hour and the seven that begin within 8 h less the reserve
    reach = 8 * HOUR - 600.0
    cleanest = [
        min([DAY[int(t // HOUR) % 24], *(DAY[h % 24] for h in range(int(t // HOUR) + 1, int((t + reach) // HOUR) + 1))])
        for t in at_once.requests["arrival_s"]
    ]
    now = [DAY[int(t // HOUR) % 24] for t in at_once.requests["arrival_s"]]
    assert grams(shifted["oracle"]) / grams(at_once) == pytest.approx(np.sum(cleanest) / np.sum(now), rel=0.03)


def test_a_falling_intensity_is_waited_for_as_long_as_the_deadline_lets() -> None:
    falling = fleet_of(pool(), intensity=StepSignal(HOUR, [float(1000 - 10 * i) for i in range(80)], 80 * HOUR))
    router = TemporalShift(LeastOutstanding(), "oracle", least_gain=0.0)
    requests = run(falling, day(), router, seed=1).requests
    latest_s = 8 * HOUR - 600.0
    assert (requests["uplink_s"] > latest_s - HOUR).all()
    assert (requests["uplink_s"] <= latest_s).all()
    assert requests["e2e_s"].max() <= 8 * HOUR


def test_nobody_waits_without_slack_or_reason_or_knowledge() -> None:
    plain = run(day_fleet(), day(), LeastOutstanding(), seed=1).requests["e2e_s"]
    for workload, router in (
        (day(None), TemporalShift(LeastOutstanding(), "oracle")),
        (day(500.0), TemporalShift(LeastOutstanding(), "oracle")),
        (day(), TemporalShift(LeastOutstanding(), "persistence")),  # by which all hours are alike
    ):
        assert run(day_fleet(), workload, router, seed=1).requests["e2e_s"] == pytest.approx(plain)
    unknown = fleet_of(pool())
    assert run(unknown, day(), TemporalShift(LeastOutstanding()), seed=1).requests["e2e_s"] == pytest.approx(plain)


def test_a_worse_forecast_saves_less() -> None:
    saved = [
        grams(run(day_fleet(), day(), TemporalShift(LeastOutstanding(), Noisy(sigma)), seed=1))
        for sigma in (0.0, 0.1, 1.0)
    ]
    assert saved == sorted(saved)
    assert saved[0] < saved[2]


# -- brevity ----------------------------------------------------------------------------------------------------------

LEVELS = [
    {"above_g_per_kwh": DIRTY, "output_factor": 0.5, "quality_factor": 0.9},
    {"above_g_per_kwh": 350.0, "output_factor": 0.2, "quality_factor": 0.5},
]
TASK = QualityModel("mmlu")


def test_answers_are_shorter_and_worse_in_dirty_hours_alone() -> None:
    fleet = fleet_of(pool(quality={"mmlu": 0.8}), intensity=StepSignal(HOUR, DAY, 80 * HOUR))
    workload = SyntheticWorkload(Poisson(0.01), Fixed(40, 30), duration_s=24 * HOUR)
    whole = run(fleet, workload, LeastOutstanding(), seed=1, quality=TASK).requests
    brief = run(fleet, workload, CarbonBrevity(LeastOutstanding(), LEVELS, "oracle"), seed=1, quality=TASK).requests
    intensity = np.array([DAY[int(t // HOUR)] for t in whole["arrival_s"]])
    clean, dirtiest = intensity <= DIRTY, intensity > 350.0
    dirty = ~clean & ~dirtiest
    for where, tokens, factor in ((clean, 30, 1.0), (dirty, 15, 0.9), (dirtiest, 6, 0.5)):
        assert where.any()
        assert (brief["output_tokens"][where] == tokens).all()
        assert brief["quality"][where] == pytest.approx(factor * whole["quality"][where])
    assert brief["carbon_operational_g"][clean] == pytest.approx(whole["carbon_operational_g"][clean], rel=1e-3)
    ratio = brief["carbon_operational_g"][dirty].sum() / whole["carbon_operational_g"][dirty].sum()
    assert 0.45 < ratio < 0.55  # the later tokens, which are left out, read the longer contexts
    assert whole["quality"].mean() > brief["quality"].mean() > 0.5 * whole["quality"].mean()


def test_brevity_holds_in_a_cascade_too() -> None:
    weak, strong = pool("weak", quality={"mmlu": 0.5}), pool("strong", xpu=xpu(3.0), quality={"mmlu": 0.9})
    fleet = Fleet((Site("edge", "edge", (weak,), Constant(300.0)), Site("cloud", "cloud", (strong,), Constant(100.0))))
    rows = [(float(i), 20, 40) for i in range(30)]
    cascade = Cascade([EdgeOnly(), CloudOnly()])
    plain = simulate(fleet, rows, cascade, quality=TASK).requests
    half = simulate(fleet, rows, CarbonBrevity(cascade, LEVELS, where="edge"), quality=TASK).requests
    assert set(half["output_tokens"].tolist()) == {20}
    assert half["quality"] == pytest.approx(0.9 * plain["quality"])
    assert half["escalations"].tolist() == plain["escalations"].tolist()
    # the mean of the two sites is not dirty
    unchanged = simulate(fleet, rows, CarbonBrevity(cascade, LEVELS), quality=TASK).requests
    assert unchanged["output_tokens"].tolist() == plain["output_tokens"].tolist()


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: TemporalShift(EdgeOnly, "oracle"), "router.router"),
        (lambda: TemporalShift(EdgeOnly(), "wishful"), "router.forecast"),
        (lambda: TemporalShift(EdgeOnly(), slot_s=0.0), "router.slot_s"),
        (lambda: TemporalShift(EdgeOnly(), least_gain=1.0), "router.least_gain"),
        (lambda: CarbonBrevity(EdgeOnly(), []), "router.levels"),
        (lambda: CarbonBrevity(EdgeOnly(), [LEVELS[1], LEVELS[0]]), "router.levels"),
        (lambda: CarbonBrevity(EdgeOnly(), [{"above_g_per_kwh": 3.0}]), "router.levels[0]"),
        (lambda: CarbonBrevity(EdgeOnly(), [LEVELS[0] | {"output_factor": 0.0}]), "router.levels[0].output_factor"),
    ],
)
def test_bad_settings_name_their_key(make: Any, key: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key


def test_a_place_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError) as error:
        run(day_fleet(), day(), TemporalShift(LeastOutstanding(), where="moon"))
    assert error.value.key == "router.where"

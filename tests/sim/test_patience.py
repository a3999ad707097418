"""Clients that leave, and policies inside routers inside policies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim import Constant, Fleet, InputError, Site, run
from sim.quality import QualityModel
from sim.results import STATUSES
from sim.routing import (
    Bandit,
    Cascade,
    CloudOnly,
    EdgeOnly,
    HedgedRace,
    LeastOutstanding,
    PrivacyPin,
    Spillover,
    Stale,
    Timeout,
)
from sim.workload import Fixed, Poisson, SyntheticWorkload
from tests.sim.conftest import MODEL, fleet_of, pool, simulate, xpu

COMPLETED, TIMED_OUT, CANCELLED = (STATUSES.index(name) for name in ("completed", "timed_out", "cancelled"))
SURE = QualityModel("mmlu", 0.0, 0.99, 0.9999)  # a verifier that is hardly ever wrong
LONE = [(float(i), 20, 50) for i in range(6)]


def hybrid() -> Fleet:
    """A weak model at the edge, a strong one in the cloud."""
    weak = pool("weak", model=replace(MODEL, id="weak"), quality={"mmlu": 0.5})
    strong = pool("strong", xpu=xpu(3.0), quality={"mmlu": 0.95})
    return Fleet((Site("edge", "edge", (weak,), Constant(100.0)), Site("cloud", "cloud", (strong,), Constant(100.0))))


# -- patience ---------------------------------------------------------------------------------------------------------


def test_who_leaves_frees_the_replica_at_its_next_step_and_is_paid_for() -> None:
    fleet = fleet_of(pool())
    alone = simulate(fleet, LONE).requests
    whole_s = float(alone["e2e_s"][0])
    patient = simulate(fleet, LONE, Timeout(LeastOutstanding(), whole_s * 1.001)).requests
    assert patient["e2e_s"] == pytest.approx(alone["e2e_s"])
    result = simulate(fleet, LONE, Timeout(LeastOutstanding(), whole_s / 2))
    requests, legs = result.requests, result.legs
    assert legs is not None
    assert (requests["status"] == TIMED_OUT).all()
    assert (legs["status"] == CANCELLED).all()
    assert (legs["output_tokens"] > 20).all()
    assert (legs["output_tokens"] < 30).all()
    assert (requests["energy_j"] == 0.0).all()
    assert requests["energy_wasted_j"] == pytest.approx(alone["energy_j"] / 2, rel=0.1)
    assert np.isnan(requests["e2e_s"]).all()


def test_impatience_sheds_load_and_saves_the_others() -> None:
    rows = [(0.01 * i, 50, 100) for i in range(200)]
    fleet = fleet_of(pool(engine={"max_num_seqs": 4}))
    endless = simulate(fleet, rows).requests
    leaving = simulate(fleet, rows, Timeout(LeastOutstanding(), 2.0)).requests
    done = leaving["status"] == COMPLETED
    assert 10 < done.sum() < 200
    assert set(leaving["status"].tolist()) == {COMPLETED, TIMED_OUT}
    assert leaving["e2e_s"][done].max() <= 2.0 + 1e-9
    assert endless["e2e_s"].max() > 2.0


def test_patience_ends_a_cascade_and_a_race_wherever_they_are() -> None:
    fleet, cascade = hybrid(), Cascade([EdgeOnly(), CloudOnly()])
    plain = simulate(fleet, LONE, cascade, quality=SURE).requests
    up = plain["escalations"] == 1
    assert 0 < up.sum() < 6
    between = float(0.5 * (plain["e2e_s"][up].min() + plain["e2e_s"][~up].max()))
    status = simulate(fleet, LONE, Timeout(cascade, between), quality=SURE).requests["status"]
    assert (status[up] == TIMED_OUT).all()
    assert (status[~up] == COMPLETED).all()
    race = HedgedRace(wait_s=0.0)
    fast = simulate(fleet, LONE, race).requests
    raced = simulate(fleet, LONE, Timeout(race, float(fast["e2e_s"].max()) * 1.01)).requests
    assert raced["e2e_s"] == pytest.approx(fast["e2e_s"])


# -- policies inside routers ------------------------------------------------------------------------------------------


def mixed(share: float = 0.4) -> SyntheticWorkload:
    return SyntheticWorkload(Poisson(30.0), Fixed(40, 20), limit=200, privacy={"share": share})


def test_privacy_pin_then_cascade_then_spillover() -> None:
    spill = Spillover(prefer="cloud", outstanding_per_replica=1)
    others = Cascade([EdgeOnly(), spill])
    result = run(hybrid(), mixed(), PrivacyPin(LeastOutstanding(), others), seed=1, quality=SURE)
    plain = run(hybrid(), mixed(0.0), others, seed=1, quality=SURE)
    requests, legs = result.requests, result.legs
    assert legs is not None
    assert (requests["status"] == COMPLETED).all()
    private = requests["request_id"][private_of(mixed())]
    assert 50 < len(private) < 110
    assert (legs["pool"][np.isin(legs["request_id"], private)] == 0).all()
    assert (requests["legs"][private] == 1).all()
    up = requests["escalations"] == 1
    assert not up[private].any()
    # whoever is not private is given up as often as if nobody were
    other = np.setdiff1d(requests["request_id"], private)
    assert up[other].tolist() == (plain.requests["escalations"] == 1)[other].tolist()
    assert set(requests["pool"][up].tolist()) == {0, 1}  # the cloud, or the edge again where that is full


def private_of(workload: SyntheticWorkload) -> Any:
    """Which requests are private."""
    from sim.rng import Streams

    traits = [each for batch in workload.batches(Streams(1)) for each in batch.traits or ()]
    return np.array([each.private for each in traits]) > 0


def test_a_private_cascade_cannot_leave_the_edge() -> None:
    with pytest.raises(InputError, match="cloud"):
        run(hybrid(), mixed(), PrivacyPin(Cascade([EdgeOnly(), CloudOnly()]), LeastOutstanding()), seed=1)


def test_policies_choose_by_old_loads() -> None:
    rows = [(0.001 * i, 20, 50) for i in range(60)]
    twins = Fleet(tuple(Site(name, "edge", (pool(name),), Constant(100.0)) for name in ("a", "b")))
    fresh = simulate(twins, rows, Timeout(LeastOutstanding(), 1e3)).requests["pool"]
    stale = simulate(twins, rows, Stale(Timeout(LeastOutstanding(), 1e3), 0.02)).requests["pool"]
    assert fresh.sum() == 30
    assert stale[:20].sum() == 0  # nobody has heard of the first ones' load


def test_a_router_that_learns_is_told_inside_a_policy() -> None:
    learner = Bandit()
    told: list[int] = []
    completed = learner.completed
    learner.completed = lambda request, pool, outcome: (  # type: ignore[method-assign]
        told.append(request.id),
        completed(request, pool, outcome),
    )[1]
    result = run(hybrid(), mixed(), Timeout(PrivacyPin(LeastOutstanding(), learner), 1e3), seed=1)
    private = set(np.flatnonzero(private_of(mixed())).tolist())
    assert sorted(told) == [i for i in range(len(result)) if i not in private]


def test_what_holds_itself_is_refused() -> None:
    outer = Timeout(EdgeOnly())
    outer._inner.router = PrivacyPin(outer, LeastOutstanding())
    with pytest.raises(InputError, match="hold one another"):
        simulate(hybrid(), LONE, outer)
    with pytest.raises(InputError, match="last"):
        Cascade([HedgedRace(), CloudOnly()])
    with pytest.raises(InputError) as error:
        Timeout(EdgeOnly(), 0.0)
    assert error.value.key == "router.patience_s"

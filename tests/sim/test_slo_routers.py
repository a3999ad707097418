"""Routers under an SLO on simulated fleets: cheaper, or cleaner, than those that go by load, and still on time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim import Constant, Fleet, InputError, Owned, Pool, Rent, Result, Site, SLOClass, act_of, catalogue, run
from sim.accounting.forecast import Oracle
from sim.routing import CarbonSLO, CloudOnly, LeastOutstanding, MinCostSLO, OldXPUOffload
from sim.workload import Fixed, Gamma, Independent, LogNormal, Poisson, SyntheticWorkload
from tests.sim.conftest import MODEL, StepSignal, embodied, pool, simulate, xpu

RELAXED = SLOClass("chat", ttft_s=2.0, tpot_s=0.2)


def chat(rate: float, limit: int) -> SyntheticWorkload:
    """Chat of about the lengths of the Azure conversation trace, in gamma arrivals."""
    lengths = Independent(LogNormal(median=700, mean=1100), LogNormal(median=130, mean=210))
    return SyntheticWorkload(Gamma(rate, 1.1), lengths, limit=limit, slo_classes=(RELAXED,))


def replicas(name: str, chip: str, count: int, cost: object) -> Pool:
    """Llama-3.1-8B on a chip of the catalogue."""
    entry = catalogue.xpu(chip)
    return Pool(name, catalogue.model("llama_3_1_8b"), entry, count, cost=cost, embodied=act_of(entry))


def attainment(result: Result) -> float:
    requests = result.requests
    met = (requests["ttft_s"] <= RELAXED.ttft_s) & ~(requests["tpot_s"] > RELAXED.tpot_s)
    return float(np.mean(met))


def grams(result: Result) -> float:
    """Operational carbon of the fleet, idle replicas included."""
    return sum(sum(each.carbon_operational_g.values()) for each in result.pools)


def split(result: Result) -> list[int]:
    return np.bincount(result.requests["pool"].astype(int), minlength=len(result.pools)).tolist()


EDGE = Site("edge", "edge", [replicas("edge", "l4", 4, Owned(2500.0, electricity_usd_per_kwh=0.12))], pue=1.3)
CLOUD = Site("cloud", "cloud", [replicas("cloud", "h100_sxm", 1, Rent(2.69))], pue=1.15)


def test_min_cost_slo_is_cheaper_than_the_cloud_and_holds_the_slo():
    fleet = Fleet([EDGE, CLOUD])
    cloud = run(fleet, chat(4.0, 2000), CloudOnly(), seed=1)
    cheap = run(fleet, chat(4.0, 2000), MinCostSLO(), seed=1)
    assert cheap.requests["cost_usd"].sum() < 0.9 * cloud.requests["cost_usd"].sum()
    assert attainment(cheap) >= 0.9
    assert min(split(cheap)) > 100  # the edge fills up to its SLO, and the rest goes to the cloud


def test_min_cost_slo_leaves_the_cheap_pool_as_bounds_tighten():
    fleet, shares = Fleet([EDGE, CLOUD]), []
    for margin in (0.8, 0.45, 0.2):
        shares.append(split(run(fleet, chat(4.0, 500), MinCostSLO(margin=margin), seed=1))[0])
    assert shares[0] > shares[1] > shares[2] == 0


def two_grids(first: object, second: object) -> Fleet:
    one, two = (replicas(name, "h100_sxm", 1, Rent(2.69)) for name in ("one", "two"))
    return Fleet([Site("one", "cloud", [one], first), Site("two", "cloud", [two], second)])


def test_carbon_slo_emits_less_at_equal_attainment():
    fleet = two_grids(Constant(647.0), Constant(31.0))
    level = run(fleet, chat(16.0, 1500), LeastOutstanding(), seed=1)
    clean = run(fleet, chat(16.0, 1500), CarbonSLO(), seed=1)
    assert grams(clean) < 0.5 * grams(level)
    assert attainment(clean) == attainment(level) == 1.0
    busy = run(fleet, chat(60.0, 1500), CarbonSLO(), seed=1)  # more than the clean site can serve in time
    assert split(busy)[0] > 200
    assert attainment(busy) > 0.97


def test_a_forecast_is_not_the_truth():
    # the grids change places every hour: who goes by the hour before is always wrong, but for the first hour
    fleet = two_grids(StepSignal(3600.0, [100.0, 500.0], 1e5), StepSignal(3600.0, [500.0, 100.0], 1e5))
    workload = SyntheticWorkload(Poisson(0.05), Fixed(500, 100), limit=600, slo_classes=(RELAXED,))
    late, oracle = (run(fleet, workload, CarbonSLO(forecast=each), seed=1) for each in ("persistence", Oracle()))
    active = [result.requests["carbon_operational_g"].sum() for result in (oracle, late)]
    assert active[0] < 0.4 * active[1]
    hour, at = (late.requests["arrival_s"] // 3600).astype(int), late.requests["pool"].astype(int)
    assert (at[hour > 0] == 1 - hour[hour > 0] % 2).all()


def test_noise_of_a_forecast_costs_carbon_and_nothing_else():
    fleet = two_grids(Constant(200.0), Constant(260.0))
    workload = SyntheticWorkload(Poisson(0.02), Fixed(500, 100), limit=300, slo_classes=(RELAXED,))
    exact = run(fleet, workload, CarbonSLO(forecast="oracle"), seed=1)
    wrong = run(fleet, workload, CarbonSLO(forecast="noisy"), seed=1)
    assert split(exact)[1] == 0
    assert 0 < split(wrong)[1] < split(wrong)[0]


def test_carbon_slo_keeps_to_models_that_are_good_enough():
    small, large = (
        Pool(name, catalogue.model(name), catalogue.xpu("h100_sxm")) for name in ("llama_3_2_1b", "llama_3_1_8b")
    )
    fleet = Fleet([Site("site", "cloud", [small, large], Constant(400.0))])
    for floor, chosen in ((None, 0), (0.6, 1)):
        result = run(fleet, chat(2.0, 100), CarbonSLO(accuracy_floor=floor), seed=1)
        assert split(result)[chosen] == 100
    with pytest.raises(InputError, match=r"router\.accuracy_floor=0\.99 .* mmlu \(llama_3_2_1b 0\.\d+, llama_3_1_8b"):
        run(fleet, chat(2.0, 10), CarbonSLO(accuracy_floor=0.99))
    with pytest.raises(InputError, match=r"a floor that a pool of this fleet reaches on poetry .* unknown"):
        run(fleet, chat(2.0, 10), CarbonSLO(accuracy_floor=0.1, benchmark="poetry"))


def old_and_new(intensity: float) -> Fleet:
    """An old chip that takes 1.5 times the energy, and a new one with ten times the embodied carbon a second."""
    old = pool("old", xpu=replace(xpu(0.4), id="old"), host=None, embodied=embodied(4.0))
    new = pool("new", xpu=xpu(1.0), host=None, embodied=embodied(40.0))
    return Fleet([Site("site", "cloud", [new, old], Constant(intensity))])


def test_old_xpus_serve_where_embodied_carbon_weighs_more_than_their_energy():
    rows = [(0.2 * i, 40, 20) for i in range(60)]

    def carbon(intensity, router):
        result = simulate(old_and_new(intensity), rows, router, slo_classes=(RELAXED,))
        requests = result.requests
        return (requests["carbon_operational_g"] + requests["carbon_embodied_g"]).sum(), split(result)

    total, where = carbon(20.0, OldXPUOffload(["old"]))
    assert where[1] == 60
    assert total < carbon(20.0, LeastOutstanding())[0]
    total, where = carbon(20_000.0, OldXPUOffload(["old"]))
    assert where[0] == 60
    strict = SLOClass("chat", ttft_s=2.0, tpot_s=0.012)
    result = simulate(old_and_new(20.0), rows, OldXPUOffload(["old"]), slo_classes=(strict,))
    assert split(result)[0] == 60  # the old chip is too slow


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: MinCostSLO(margin=0.0), "router.margin"),
        (lambda: MinCostSLO(expected_output=0), "router.expected_output"),
        (lambda: MinCostSLO(batch="largest"), "router.batch"),
        (lambda: CarbonSLO(forecast="weather"), "router.forecast"),
        (lambda: CarbonSLO(embodied=1), "router.embodied"),
        (lambda: CarbonSLO(accuracy_floor=1.2), "router.accuracy_floor"),
        (lambda: OldXPUOffload([]), "router.old"),
        (lambda: OldXPUOffload("t4"), "router.old"),
    ],
)
def test_bad_settings_name_their_key(build, key):
    with pytest.raises(InputError) as error:
        build()
    assert error.value.key == key


@pytest.mark.parametrize(
    ("router", "spec", "message"),
    [
        (MinCostSLO(), {"cost": None}, "router='min_cost_slo' .* whose cost is known; it is not of: pool"),
        (CarbonSLO(embodied=True), {"embodied": None}, "router='carbon_slo' .* embodied carbon is known; .*: pool"),
        (OldXPUOffload(["t4"]), {}, r"router\.old='t4' .* xPUs of this fleet: toy"),
        (OldXPUOffload(["toy"]), {}, r"router\.old=\['toy'\] .* fewer than all xPUs"),
    ],
)
def test_fleets_that_cannot_be_ranked_are_refused_at_the_start(router, spec, message):
    fleet = Fleet([Site("site", "cloud", [pool(**spec)], Constant(100.0))])
    with pytest.raises(InputError, match=message):
        simulate(fleet, [(0.0, 10, 10)], router)


def test_a_grid_that_nobody_knows_is_refused():
    with pytest.raises(InputError, match=r"router='carbon_slo' .* whose grid is known; it is not of: pool"):
        simulate(Fleet([Site("site", "cloud", [pool(model=MODEL)])]), [(0.0, 10, 10)], CarbonSLO())

"""The closed form of a full replica against the simulator, and the books of a training job by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim import Constant, Fleet, Pool, Rent, Site, act_of, catalogue, run
from sim.accounting.cost import Owned
from sim.accounting.embodied import published
from sim.accounting.job import job_account, job_rates
from sim.accounting.tariff import ClockTariff
from sim.errors import InputError
from sim.fleet.engine_settings import EngineSettings
from sim.fleet.spec import Host
from sim.fleet.steady_state import steady_state
from sim.routing import LeastOutstanding
from sim.workload import Fixed, Poisson, SyntheticWorkload

H100 = catalogue.xpu("h100_sxm")


def _pool(model: str = "llama_3_1_8b", seats: int = 64, tp: int = 1) -> Pool:
    engine = EngineSettings(max_num_seqs=seats)
    cost = Rent(2.0)
    return Pool("p", catalogue.model(model), H100, tp=tp, engine=engine, cost=cost, embodied=act_of(H100))


@pytest.mark.parametrize(("prompt", "output", "seats"), [(256, 256, 32), (1024, 128, 64), (64, 512, 128)])
def test_closed_form_is_the_throughput_of_a_flooded_replica(prompt: int, output: int, seats: int) -> None:
    pool = _pool(seats=seats)
    closed = steady_state(pool, prompt, output)
    assert closed.batch == seats
    workload = SyntheticWorkload(Poisson(1000.0), Fixed(prompt=prompt, output=output), limit=20 * seats)
    done = run(Fleet((Site("s", "cloud", (pool,), Constant(0.0)),)), workload, LeastOutstanding(), seed=1)
    simulated = 20 * seats / done.pools[0].provisioned_s
    # filling and draining take a part of the twenty batches
    assert closed.requests_per_s == pytest.approx(simulated, rel=0.06)


def test_a_bound_on_the_pace_takes_the_largest_batch_that_meets_it() -> None:
    free = steady_state(_pool(), 512, 256)
    bound = steady_state(_pool(), 512, 256, tpot_s=0.8 * free.token_s)
    assert bound.batch < free.batch
    assert bound.token_s <= 0.8 * free.token_s
    one_more = steady_state(_pool(seats=bound.batch + 1), 512, 256)
    assert one_more.token_s > 0.8 * free.token_s


def test_bounds_that_cannot_be_met_serve_nothing() -> None:
    assert steady_state(_pool(), 512, 256, tpot_s=1e-6).requests_per_s == 0.0
    assert steady_state(_pool(), 512, 256, ttft_s=1e-6).requests_per_s == 0.0


def test_memory_bounds_the_batch_by_the_blocks_that_requests_hold() -> None:
    pool = _pool("llama_3_1_70b", seats=256, tp=2)
    closed = steady_state(pool, 3000, 1000)
    assert closed.blocks_each == 4000 // 16
    assert closed.batch == closed.blocks // closed.blocks_each < 256
    assert closed.block_bytes == pytest.approx(16 * pool.model.kv_bytes_per_token())
    # windows give blocks back, so that more requests fit than their whole contexts would
    windowed = steady_state(_pool("gemma_3_27b", seats=1024), 8000, 100)
    whole = windowed.blocks * windowed.block_bytes / catalogue.model("gemma_3_27b").kv_bytes_per_token()
    assert windowed.batch * 8100 > whole


def test_the_books_of_a_job_by_hand() -> None:
    host = Host(100.0, published(500.0, "server", "x", 4.0))
    pool = replace(_pool(), host=host, cost=Rent(3.6), embodied=published(100.0, "board", "x", 5.0, low_kg=50.0))
    rates = job_rates(pool, Constant(200.0), 1.2, 0.5)
    account = job_account(16, 7200.0, rates)
    kwh = 16 * 2 * (0.5 * H100.tdp_w + 100.0) * 1.2 / 1000
    assert account.energy_j == pytest.approx(kwh * 3.6e6)
    assert account.operational_g == pytest.approx(kwh * 200.0)
    assert account.usd == pytest.approx(32 * 3.6)
    year = 8760.0
    assert account.embodied_g is not None
    assert account.embodied_g[1] == pytest.approx(32 * 1000 * (100 / (5 * year) + 500 / (4 * year)))
    assert account.embodied_g[0] == pytest.approx(32 * 1000 * (50 / (5 * year) + 500 / (4 * year)))


def test_a_job_pays_started_units_and_the_tariff_of_the_moment() -> None:
    rented = replace(_pool(), cost=Rent(3.6, billing_unit_s=3600.0))
    assert job_account(2, 3601.0, job_rates(rented, Constant(0.0), 1.0, 1.0)).usd == pytest.approx(2 * 2 * 3.6)
    owned = replace(_pool(), cost=Owned(0.0, tariff=ClockTariff([0.1] * 12 + [0.3] * 12, "UTC", "2024-01-01")))
    account = job_account(1, 86400.0, job_rates(owned, Constant(0.0), 1.0, 1.0))
    assert account.usd == pytest.approx(account.energy_j / 3.6e6 * 0.2)


def test_what_is_unknown_of_a_job_stays_unknown() -> None:
    pool = replace(_pool(), cost=None, embodied=None)
    account = job_account(8, 3600.0, job_rates(pool, Constant(200.0), 1.0, 1.0))
    assert account.usd is None
    assert account.embodied_g is None
    half = replace(_pool(), embodied_shares={"rack": None})
    assert job_account(8, 3600.0, job_rates(half, Constant(200.0), 1.0, 1.0)).embodied_g is None


@pytest.mark.parametrize(
    ("pue", "share", "key"), [(0.9, 1.0, "pue"), (1.1, 0.0, "power_share"), (1.1, 1.5, "power_share")]
)
def test_bad_rates_are_named(pue: float, share: float, key: str) -> None:
    with pytest.raises(InputError) as caught:
        job_rates(_pool(), Constant(1.0), pue, share)
    assert caught.value.key == key

"""The QoE-aware order: its gains by hand, and that readers who wait are served before those who have enough to read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim import InputError, Result, SLOClass
from sim.routing.load import LeastOutstanding
from sim.serving.andes import gain
from sim.simulation import run
from tests.sim.conftest import ListWorkload, fleet_of, pool

READER = SLOClass("reader", expected_ttft_s=1.0, digest_tokens_per_s=5.0)


def test_gains_by_hand() -> None:
    assert gain(0.0, 0, 2.0, 5.0, 1.0) == 0.0  # nothing is expected before the horizon ends
    assert gain(2.0, 0, 1.0, 5.0, 1.0) == pytest.approx((1.0 / 2.0) ** 2)  # of 2 s of text, one is lost
    assert gain(0.5, 0, 1.0, 5.0, 1.0) == pytest.approx(1.0)  # half a second of 0.5 expected
    assert gain(2.0, 10, 1.0, 5.0, 1.0) == 0.0  # 2 s of text, of which 1 s is read: it lasts
    assert gain(2.0, 7, 1.0, 5.0, 1.0) == pytest.approx(((1.0 - 0.4) / 2.0) ** 2)  # 0.4 s are left


def serve(scheduler: str, rows: list[tuple[float, int, int]], **engine: object) -> Result:
    of = pool("p")
    of = replace(of, engine=replace(of.engine, scheduler=scheduler, **engine))  # type: ignore[arg-type]
    return run(fleet_of(of), ListWorkload(rows, (READER,)), LeastOutstanding())


def crowd() -> list[tuple[float, int, int]]:
    rng = np.random.default_rng(11)
    return [
        (float(t), int(rng.integers(20, 60)), int(rng.integers(100, 300))) for t in np.cumsum(rng.exponential(0.25, 60))
    ]


def test_readers_of_an_overloaded_pool_are_better_off() -> None:
    plain, andes = (serve(name, crowd(), max_num_seqs=8, andes_quantum_s=0.5) for name in ("fcfs", "andes"))
    for result in (plain, andes):
        assert bool((result.requests["status"] == 0).all())
        shares = (result.requests["energy_provisioned_j"] + result.requests["energy_wasted_j"]).sum()
        assert float(shares) == pytest.approx(sum(result.pools[0].facility_energy_j.values()), rel=1e-9)
    assert float(andes.requests["token_qoe"].mean()) > float(plain.requests["token_qoe"].mean())
    assert float(andes.requests["ttft_s"].mean()) < float(plain.requests["ttft_s"].mean())
    assert 0 < int(andes.requests["preemptions"].max()) <= 1


def test_without_preemptions_it_only_orders() -> None:
    result = serve("andes", crowd(), max_num_seqs=8, andes_preemptions=0)
    assert int(result.requests["preemptions"].sum()) == 0


def test_a_pool_with_room_for_all_is_served_as_ever() -> None:
    rows = crowd()[:6]
    plain, andes = serve("fcfs", rows), serve("andes", rows)
    assert plain.requests["e2e_s"] == pytest.approx(andes.requests["e2e_s"], rel=1e-9)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"andes_quantum_s": 0.0}, "andes_quantum_s=0.0"),
        ({"andes_preemptions": -1}, "andes_preemptions=-1"),
        ({"batching": "static"}, "engine.batching='static'.*chunked"),
    ],
)
def test_bad_settings_are_refused(engine: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        serve("andes", crowd(), **engine)

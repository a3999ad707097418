"""The same sums on what the engine returns: classes and pools add up to the total, and so does the timeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import load_run, summarize
from analysis.metrics import COMPLETED
from scenarios.store import write_run
from sim import Constant, EngineSettings, Fleet, Host, Link, Pool, Rent, Result, Site, SLOClass, act_of, published, run
from sim.hardware.catalogue import model, xpu
from sim.routing import RoundRobin
from sim.workload import Fixed, Poisson, SyntheticWorkload


@pytest.fixture(scope="module")
def result() -> Result:
    """150 requests of two classes on a starved edge replica, which preempts, and a cloud replica."""
    llama = model("llama_3_1_8b")
    pools = [
        Pool(
            name=name,
            model=llama,
            xpu=xpu(chip),
            engine=EngineSettings(kv_blocks=blocks),
            host=Host(power_w=50.0, embodied=published(100.0, "server", "a test")),
            cost=Rent(price),
            embodied=act_of(xpu(chip)),
        )
        for name, chip, blocks, price in (("edge", "l4", 120, 0.5), ("cloud", "h100_sxm", 4000, 3.0))
    ]
    sites = (
        Site("here", "edge", (pools[0],), intensity=Constant(400.0, "lca", "a test"), pue=1.4),
        Site("there", "cloud", (pools[1],), intensity=Constant(30.0, "lca", "a test"), pue=1.1),
    )
    link = Link("wan", "client", "there", latency_s=0.02, up_bytes_per_s=1e7, energy_j_per_byte=1e-3)
    workload = SyntheticWorkload(
        Poisson(4.0), Fixed(300, 120), limit=150, slo_classes=(SLOClass("chat"), SLOClass("batch")), slo_mix=(0.6, 0.4)
    )
    return run(Fleet(sites, (link,)), workload, RoundRobin(), seed=2, warmup_s=3.0)


@pytest.fixture(scope="module")
def summary(result: Result) -> dict[str, Any]:
    return summarize(result)


def test_scopes_add_up(summary: dict[str, Any]) -> None:
    total = summary["total"]
    assert total["parts"]["energy_kwh"]["wasted"] > 0.0  # the case is not trivial
    assert total["parts"]["energy_kwh"]["network"] > 0.0
    for group in ("by_pool", "by_slo_class"):
        sections = summary[group].values()
        for key in ("energy_kwh", "it_energy_kwh", "cost_usd", "output_tokens", "goodput_rps"):
            assert sum(section[key] for section in sections) == pytest.approx(total[key], rel=1e-9), (group, key)
        for key in ("operational", "embodied", "total"):
            got = sum(section["carbon_kg"][key] for section in sections)
            assert got == pytest.approx(total["carbon_kg"][key], rel=1e-9), (group, key)


def test_timeline_adds_up_to_the_total(result: Result, summary: dict[str, Any]) -> None:
    parts = summary["total"]["parts"]
    kwh = summary["total"]["energy_kwh"] - parts["energy_kwh"]["network"]
    assert result.timeline["energy_j"].sum() / 3.6e6 == pytest.approx(kwh, rel=1e-9)
    kg = summary["total"]["carbon_kg"]["operational"] - parts["carbon_operational_kg"]["network"]
    assert result.timeline["carbon_g"].sum() / 1e3 == pytest.approx(kg, rel=1e-9)
    assert result.timeline["arrivals"].sum() == len(result)


def test_gaps_are_those_of_the_requests(result: Result, summary: dict[str, Any]) -> None:
    column = result.requests
    done = column["status"] == COMPLETED
    gaps = sum(int(sample.count.sum()) for sample in result.gaps.values())
    assert gaps == (column["output_tokens"][done] - 1).sum()
    mean = column["decode_s"][done].sum() / gaps
    assert summary["total"]["itl_s"]["mean"] == pytest.approx(mean, rel=1e-6)


def test_latency_identity_and_folder(result: Result, summary: dict[str, Any], tmp_path: Path) -> None:
    write_run(tmp_path / "run", result, {}, figures=False)
    table = load_run(tmp_path / "run").requests
    e2e = table["ttft_s"] + (table["output_tokens"] - 1) * table["tpot_s"]
    np.testing.assert_allclose(table["e2e_s"].to_numpy(), e2e.to_numpy(), rtol=1e-9)
    assert table["counted"].sum() == summary["total"]["requests"]["counted"] < len(result)

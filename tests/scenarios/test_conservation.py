"""Every fleet and every drawn workload that is shipped keeps its books: the meter is the sum of its parts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sim import Result, run
from tests.scenarios.test_build import TRACES, built, options

REL = 1e-9
FILES = (*TRACES, "servegen")
#: amount -> columns of requests that hold what their work took, and what was spread over them; totals of a pool
BOOKS = {
    "facility_energy_j": (("energy_j", "energy_wasted_j"), "energy_provisioned_j"),
    "carbon_operational_g": (("carbon_operational_g",), "carbon_operational_provisioned_g"),
    "carbon_embodied_g": (("carbon_embodied_g",), "carbon_embodied_provisioned_g"),
    "cost_usd": (("cost_usd",), "cost_provisioned_usd"),
}
COMMON = ("idle", "boot", "network", "on_site")


def _run(*overrides: str) -> Result:
    scenario = built("workload.limit=40", *overrides)
    return run(scenario.fleet, scenario.workload, scenario.router, seed=1, oversize="reject", quality=scenario.quality)


def _balance(result: Result) -> int:
    """Check every book of every pool; returns how many were known."""
    rows: dict[str, Any] = result.requests if result.legs is None else result.legs
    known = 0
    for index, totals in enumerate(result.pools):
        mine = rows["pool"] == index
        for name, (own, spread) in BOOKS.items():
            parts = getattr(totals, name)
            if parts is None or any(math.isnan(part) for part in parts.values()):
                continue
            work = sum(part for key, part in parts.items() if key not in COMMON)
            shares = sum(float(rows[column][mine].sum()) for column in own)
            assert shares == pytest.approx(work, rel=REL, abs=1e-12), (totals.name, name)
            known += 1
            if not mine.any():
                continue
            whole = work + sum(parts.get(key, 0.0) for key in ("idle", "boot"))
            if name == "facility_energy_j":
                whole -= parts["wasted"]
            assert float(rows[spread][mine].sum()) == pytest.approx(whole, rel=REL), (totals.name, spread)
        drawn = totals.facility_energy_j
        meter = result.timeline["energy_j"][result.timeline["pool"] == index].sum()
        if not any(math.isnan(part) for part in drawn.values()):
            assert meter == pytest.approx(sum(drawn.values()) - drawn["network"], rel=REL), totals.name
    return known


@pytest.mark.parametrize("name", options("fleet"))
def test_every_fleet_balances(name: str) -> None:
    assert _balance(_run("workload=poisson", f"fleet={name}")) > 0


@pytest.mark.parametrize("name", [name for name in options("workload") if name not in FILES])
def test_every_drawn_workload_balances(name: str) -> None:
    owned = "fleet.sites.cloud.pools.cloud.cost=owned"
    sees = [f"fleet.sites.{each}.pools.{each}.model=qwen3_vl_8b" for each in ("edge", "cloud") if name == "multimodal"]
    assert _balance(_run(f"workload={name}", "fleet=hybrid", owned, *sees)) == 8

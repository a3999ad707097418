"""APIs from configuration: entries and overrides, a run with its report and inventory, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from sim.accounting.signal import Unknown
from sim.fleet.api import ApiPool
from sim.fleet.latency import Gamma, LogNormal
from tests.scenarios.command import run
from tests.scenarios.records import one_line
from tests.scenarios.test_build import built, options

API = "fleet.sites.cloud.pools.api"
FEW = ("fleet=hybrid_api", "workload.limit=150", "progress=none")


@pytest.mark.parametrize("name", options("api"))
def test_every_entry_builds_and_says_where_its_price_is_from(name: str) -> None:
    edge, api = built("fleet=hybrid_api", f"{API}.api={name}").fleet.pools
    assert isinstance(api, ApiPool)
    assert not isinstance(edge, ApiPool)
    assert api.price is not None
    assert api.price.usd_per_mtok_out >= api.price.usd_per_mtok_in > 0.0
    assert "litellm" in api.price.rates().basis
    assert api.latency_kind == "assumed"


def test_what_is_set_beside_an_entry_takes_its_place() -> None:
    fleet = built(
        "fleet=hybrid_api", f"{API}.ttft={{median_s:0.2,sigma:0.1}}", f"{API}.tokens_per_s=80",
        f"{API}.usd_per_mtok_out=9", f"{API}.max_concurrent=4", f"{API}.as_of=2026-01",
    ).fleet  # fmt: skip
    api = fleet.pools[1]
    assert isinstance(api, ApiPool)
    assert api.ttft == LogNormal(0.2, 0.1)
    assert (api.tokens_per_s.median, api.tokens_per_s.sigma) == (80.0, 0.0)
    assert api.price is not None
    assert (api.price.usd_per_mtok_in, api.price.usd_per_mtok_out) == (0.18, 9.0)
    assert "2026-01, given in the configuration" in api.price.rates().basis
    assert (api.max_concurrent, api.latency_kind) == (4, "given")
    assert isinstance(fleet.sites[1].intensity, Unknown)
    drawn = built("fleet=hybrid_api", f"{API}.ttft={{_target_:sim.fleet.latency.Gamma,mean_s:0.3}}").fleet.pools[1]
    assert isinstance(drawn, ApiPool)
    assert isinstance(drawn.ttft, Gamma)


def test_a_run_its_report_and_its_inventory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    sold = "economics.usd_per_mtok_out=2"
    done = run(["run", *FEW, sold, "router=cloud_only", f"out={out}"], capsys)  # with its figures
    assert done.status == 0, done.err
    assert "API of Together AI" in done.out
    assert "energy of Together AI is not disclosed" in done.out
    summary = json.loads((out / "summary.json").read_text())
    assert summary["by_pool"]["api"]["energy_kwh"] is None
    assert summary["by_pool"]["api"]["cost_usd"] > 0.0
    assert summary["sci"]["g_per_unit"]["request"] is None
    assert summary["economics"]["margin_usd"] == pytest.approx(
        2e-6 * summary["total"]["output_tokens"] - summary["total"]["cost_usd"]
    )
    assert "Economics" in (out / "report.html").read_text()
    assert "API of Together AI" in (out / "report.html").read_text()
    rows = list(csv.DictReader(run(["export", "ghg", str(out)], capsys).out.splitlines()))
    mine = [row for row in rows if row["what"].startswith("api:")]
    assert {row["scope"] for row in mine} == {"3"}
    assert {row["kg_co2e"] for row in mine} == {"not available"}


@pytest.mark.parametrize("router", ["bandit", "weighted", "prefill_decode_split"])
def test_routers_that_need_what_an_api_does_not_tell_refuse(router: str, capsys: pytest.CaptureFixture[str]) -> None:
    one_line(run(["run", *FEW, f"router={router}"], capsys), "it is not of: api")


def test_a_solar_plant_has_no_api_behind_its_meter(capsys: pytest.CaptureFixture[str]) -> None:
    plant = f"+fleet.sites.cloud.solar={{peak_kw:2,hours:[{','.join(['0.5'] * 24)}],start_utc:'2024-06-21'}}"
    one_line(run(["run", *FEW, "fleet.sites.cloud.grid=100", plant], capsys), "on_site", "'api'")


def test_an_api_has_no_capacity_to_be_found(capsys: pytest.CaptureFixture[str]) -> None:
    one_line(run(["capacity", "fleet=hybrid_api", "seeds=2", "requests=400"], capsys), "pools='api'")


@pytest.mark.parametrize("router", ["cascade", "hedged_race", "token_migration", "edge_answer_cloud_validate", "stale"])
def test_policies_use_it_like_any_pool(router: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    done = run(["run", *FEW, f"router={router}", f"out={out}", "figures=false", "report=false"], capsys)
    assert done.status == 0, done.err
    total = json.loads((out / "summary.json").read_text())["total"]
    assert total["requests"]["completed"] == total["requests"]["arrived"] == 150
    assert total["cost_usd"] > 0.0


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        (f"{API}.api=acme", [f"{API}.api='acme'", "hybridfleet list apis"]),
        (f"{API}.tokens_per_s=0", [f"{API}.tokens_per_s.median=0", "> 0"]),
        (f"{API}.ttft={{median_s:-1}}", [f"{API}.ttft.median_s=-1", ">= 0"]),
        (f"{API}.ttft={{mean_s:1}}", [f"{API}.ttft.mean_s=1", "no such key"]),
        (f"{API}.usd_per_mtok_in=-1", [f"{API}.usd_per_mtok_in=-1", ">= 0"]),
        (f"{API}.max_concurrent=0", [f"{API}.max_concurrent=0", "at least 1"]),
        (f"{API}.cached_share=2", [f"{API}.cached_share=2", "[0, 1]"]),
        (f"{API}.energy={{j_per_token_in:1,j_per_token_out:1}}", [f"{API}.energy.source=None"]),
        (f"+{API}.xpu=l4", [f"{API}.xpu='l4'", "no such key"]),
        ("fleet.sites.edge.grid=null", ["fleet.sites.edge.grid=None"]),
        ("economics.slo_violation_usd=-1", ["economics.slo_violation_usd=-1", ">= 0"]),
        (f"{API}.outages=[[1,1]]", [f"{API}.outages[0]=[1.0, 1.0]"]),
    ],
)
def test_bad_values_are_named(override: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    one_line(run(["run", *FEW, override], capsys), *parts)

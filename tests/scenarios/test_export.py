"""`hybridfleet export ghg`: scopes of a run, by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from analysis.load import load_run
from scenarios.cli import main

QUICK = ("workload.duration_s=20", "figures=false", "report=false", "progress=none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "run"
    market = "fleet.sites.edge.market={contract_share:0.5,contract_g_per_kwh:0,residual_g_per_kwh:400}"
    assert main(["run", *QUICK, "basis=direct", market, f"out={out}"]) == 0
    return out


def exported(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, str]]:
    capsys.readouterr()
    assert main(["export", "ghg", *arguments]) == 0
    return list(csv.DictReader(capsys.readouterr().out.splitlines()))


def test_owned_electricity_is_scope_2_and_rented_scope_3(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = exported(capsys, str(folder), "--grid-losses", "0.05")
    pools = load_run(folder).summary["by_pool"]
    edge = pools["edge"]
    kg = {(row["scope"], row["category"], row["method"], row["what"]): row["kg_co2e"] for row in rows}
    building = {part: kwh for part, kwh in edge["parts"]["energy_kwh"].items() if part != "network"}
    energy, direct = sum(building.values()), edge["intensity_by_basis"]["direct"]
    lca = edge["intensity_by_basis"]["lca"]
    own = ("location-based", "edge: electricity")
    assert float(kg[("2", "", *own)]) == pytest.approx(energy * direct / 1e3, rel=1e-8)
    assert float(kg[("2", "", "market-based", "edge: electricity")]) == pytest.approx(energy * 0.2, rel=1e-8)
    upstream = kg[("3", "3", "location-based", "edge: fuels and plants")]
    assert float(upstream) == pytest.approx(energy * (lca - direct) / 1e3, rel=1e-6)
    losses = kg[("3", "3", "location-based", "edge: grid losses")]
    assert float(losses) == pytest.approx(energy * direct / 1e3 * 0.05 / 0.95, rel=1e-8)
    assert float(kg[("3", "2", "", "edge: hardware, in full")]) == pytest.approx(edge["embodied_full_kg"], rel=1e-8)
    assert ("3", "1", "location-based", "cloud: electricity of rented xPUs") in kg
    assert not any(scope == "2" and "cloud" in what for scope, _, _, what in kg)


def test_what_is_not_given_is_not_available(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = exported(capsys, str(folder))
    assert [row["kg_co2e"] for row in rows if "grid losses" in row["what"]] == ["not available"]
    out = tmp_path / "run"
    assert main(["run", *QUICK, f"out={out}"]) == 0
    scope_2 = {row["method"]: row["kg_co2e"] for row in exported(capsys, str(out)) if row["scope"] == "2"}
    assert scope_2["market-based"] == "not available"
    assert float(scope_2["location-based"]) > 0.0  # the preset has the direct intensity as well


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["export", "iso", "{run}"], "export='iso'"),
        (["export", "ghg", "nowhere"], "run='nowhere'"),
        (["export", "ghg", "{run}", "--grid-losses", "1"], "--grid-losses=1"),
        (["export", "ghg", "{run}", "--out", "{run}/summary.json"], "--out="),
    ],
)
def test_bad_input(folder: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([each.replace("{run}", str(folder)) for each in arguments]) == 2
    assert told in capsys.readouterr().err

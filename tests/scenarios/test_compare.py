"""``hybridfleet compare``: common seeds, who is refused and why, what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.scenarios.command import run
from tests.scenarios.records import one_line

SMALL = ("seeds=2", "requests=120", "processes=1", "figures=false", "progress=none")
FEW = "routers=cloud_only,spillover,device_only,old_xpu_offload"


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from scenarios import cli

    out = tmp_path_factory.mktemp("compare") / "out"
    assert cli.main(["compare", "routers", FEW, *SMALL, f"out={out}"]) == 0
    return out


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "comparison.json").read_text("utf-8"))
    return found


def test_who_cannot_run_is_listed_with_the_reason(compared: Path) -> None:
    found = document(compared)
    assert set(found["refused"]) == {"device_only", "old_xpu_offload"}
    assert "device site" in found["refused"]["device_only"]
    assert "t4" in found["refused"]["old_xpu_offload"]
    assert list(found["coverage"]) == ["cloud_only", "spillover"]


def test_seeds_and_requests_are_common(compared: Path) -> None:
    runs = pl.read_parquet(compared / "runs.parquet")
    assert runs["seed"].to_list() == [0, 1, 0, 1]
    assert runs["requests"].to_list() == [60.0] * 4


def test_a_row_is_what_run_gives(compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = ("figures=false", "report=false", "progress=none")
    done = run(["run", "router=cloud_only", "seed=1", "workload.limit=60", f"out={tmp_path / 'one'}", *quiet], capsys)
    assert done.status == 0
    total = json.loads((tmp_path / "one" / "summary.json").read_text())["total"]
    row = pl.read_parquet(compared / "runs.parquet").row(1, named=True)
    assert (row["alternative"], row["seed"]) == ("cloud_only", 1)
    assert row["token_qoe"] == total["token_qoe"]
    assert row["usd_per_1000_requests"] == pytest.approx(1e3 * total["usd_per_request"], rel=1e-12)
    assert row["g_per_1000_requests"] == pytest.approx(1e3 * total["g_per_request"], rel=1e-12)


def test_results_do_not_depend_on_processes(compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [text for text in SMALL if not text.startswith("processes")]
    done = run(["compare", "routers", FEW, *settings, "processes=2", "--json", f"out={tmp_path / 'two'}"], capsys)
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out) == document(compared)
    ours, theirs = (pl.read_parquet(folder / "runs.parquet") for folder in (compared, tmp_path / "two"))
    assert ours.equals(theirs)


def test_a_baseline_is_the_reference_of_every_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["routers=cloud_only,spillover", "baseline=spillover", *SMALL[:3], "progress=none"]
    done = run(["compare", "routers", *words, f"out={tmp_path / 'out'}"], capsys)
    assert (done.status, done.err) == (0, "")
    assert {metric["reference"] for metric in document(tmp_path / "out")["metrics"].values()} == {"spillover"}
    assert (tmp_path / "out" / "comparison.svg").is_file()


def test_quality_matters_on_the_quality_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["routers=edge_only,cloud_only", "fleet=hybrid_quality", "seeds=3", "requests=1500", *SMALL[2:]]
    assert run(["compare", "routers", *words, f"out={tmp_path / 'out'}"], capsys).status == 0
    metrics = document(tmp_path / "out")["metrics"]
    assert metrics["answer_quality"]["reference"] == "cloud_only"
    assert metrics["answer_quality"]["alternatives"]["edge_only"]["verdict"] == "worse"
    assert metrics["g_active_per_1000_requests"]["reference"] == "edge_only"


def test_an_unknown_quality_is_null(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["routers=edge_only,cloud_only", "fleet.sites.edge.pools.edge.model=sparse_llama_3_1_8b", *SMALL]
    assert run(["compare", "routers", *words, f"out={tmp_path / 'out'}"], capsys).status == 0
    found = document(tmp_path / "out")
    alternatives = found["metrics"]["answer_quality"]["alternatives"]
    assert (alternatives["edge_only"]["mean"], alternatives["edge_only"]["seeds_known"]) == (None, 0)
    assert found["coverage"]["edge_only"]["quality_known_share"] == 0.0
    assert found["metrics"]["answer_quality"]["reference"] == "cloud_only"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["compare"], ["arguments"]),
        (["compare", "fleets"], ["compare='fleets'", "routers"]),
        (["compare", "routers", "routers=cloudonly"], ["routers='cloudonly'", "cloud_only"]),
        (["compare", "routers", "seeds=1"], ["seeds=1"]),
        (["compare", "routers", "seeds=many"], ["seeds='many'"]),
        (["compare", "routers", "seeds=3", "seeds=4"], ["seeds"]),
        (["compare", "routers", "router=cloud_only"], ["router='cloud_only'", "routers="]),
        (["compare", "routers", "routers=cloud_only", "baseline=random"], ["baseline='random'", "cloud_only"]),
        (["compare", "routers", "routers=device_only", *SMALL], ["routers='device_only'", "device site"]),
        (["compare", "routers", "routers=cloud_only,device_only", "baseline=device_only", *SMALL], ["baseline"]),
        (["compare", "routers", "fleet=moon"], ["fleet='moon'", "hybrid"]),
        (["compare", "routers", "workload.rate=1,2"], ["workload.rate"]),
        (["compare", "routers", "routers=cloud_only", "workload.speed=2"], ["workload.speed"]),
        (["compare", "routers", "plugins=[]", "out=/proc/x"], ["out"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str],
    named: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(words, capsys)
    one_line(done, *named)
    assert not list(tmp_path.iterdir())

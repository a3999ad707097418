"""``hybridfleet compare techniques`` and ``applications``: alternatives of a file against a baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from scenarios.alternatives import read_comparison
from sim.errors import InputError
from tests.scenarios.command import run
from tests.scenarios.records import one_line

SMALL = ("seeds=2", "requests=300", "processes=1", "progress=none")


@pytest.fixture(scope="module")
def techniques(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from scenarios import cli

    out = tmp_path_factory.mktemp("techniques") / "out"
    names = "weights_int8,weights_int4,kv_fp8,sparse_2of4,distilled_1b,dense_14b,moe_30b_a3b,prefix_caching"
    assert cli.main(["compare", "techniques", f"techniques={names}", *SMALL, f"out={out}"]) == 0
    return out


def means(folder: Path) -> dict[str, dict[str, float | None]]:
    """Of each alternative, the mean of each measure; None where a seed does not know it."""
    runs = pl.read_parquet(folder / "runs.parquet")
    numbers = [name for name in runs.columns if name not in ("alternative", "seed")]
    return {
        str(group["alternative"][0]): {n: None if group[n].null_count() else group[n].mean() for n in numbers}  # type: ignore[misc]
        for group in runs.partition_by("alternative", maintain_order=True)
    }


def test_the_baseline_is_always_there_and_first(techniques: Path) -> None:
    found = json.loads((techniques / "comparison.json").read_text("utf-8"))
    assert found["baseline"] == "base"
    assert next(iter(found["coverage"])) == "base"
    assert {metric["reference"] for metric in found["metrics"].values()} == {"base"}
    assert (techniques / "comparison.svg").is_file()


def test_each_technique_changes_what_it_is_about(techniques: Path) -> None:
    found: dict[str, Any] = means(techniques)
    base = found["base"]
    for name in ("weights_int8", "weights_int4", "kv_fp8", "sparse_2of4"):
        assert found[name]["gflop_per_output_token"] == pytest.approx(base["gflop_per_output_token"])
        assert found[name]["memory_gb"] < base["memory_gb"]
        assert found[name]["tpot_mean_s"] < base["tpot_mean_s"]
    for name in ("distilled_1b", "prefix_caching"):
        assert found[name]["gflop_per_output_token"] < base["gflop_per_output_token"]
        assert found[name]["j_per_output_token"] < base["j_per_output_token"]
    # a mixture computes as its active part and holds all of it; its quality is that of the dense model beside it
    mixture, dense = found["moe_30b_a3b"], found["dense_14b"]
    assert mixture["gflop_per_output_token"] < 0.4 * dense["gflop_per_output_token"]
    assert mixture["memory_gb"] > dense["memory_gb"] > base["memory_gb"]
    assert mixture["answer_quality"] == pytest.approx(dense["answer_quality"], abs=0.05)
    assert found["prefix_caching"]["answer_quality"] == base["answer_quality"]
    assert found["distilled_1b"]["answer_quality"] < base["answer_quality"]
    assert {each["network_mb_per_1000_requests"] for each in found.values()} == {base["network_mb_per_1000_requests"]}


def test_a_quality_that_nobody_knows_is_null(techniques: Path) -> None:
    cell = json.loads((techniques / "comparison.json").read_text("utf-8"))["metrics"]["answer_quality"]["alternatives"]
    assert (cell["sparse_2of4"]["mean"], cell["sparse_2of4"]["verdict"]) == (None, "unknown")


def test_one_pool_alone_is_changed_and_what_does_not_fit_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fleet=hybrid", "techniques=moe_30b_a3b,weights_fp8", *SMALL, "figures=false", f"out={tmp_path / 'edge'}"]
    done = run(["compare", "techniques", "pool=edge", "--json", *words], capsys)
    assert done.status == 0
    found = json.loads(done.out)
    assert "fleet.sites.edge.pools.edge" in found["refused"]["moe_30b_a3b"]
    assert list(found["coverage"]) == ["base", "weights_fp8"]
    other = run(["compare", "techniques", *words[:1], "techniques=weights_fp8", "pool=cloud", *SMALL, "--json",
                 "figures=false", f"out={tmp_path / 'cloud'}"], capsys)  # fmt: skip
    weights = [
        json.loads(text)["metrics"]["memory_gb"]["alternatives"]["weights_fp8"]["difference"]["value"]
        for text in (done.out, other.out)
    ]
    assert weights[0] < weights[1] < 0.0  # four replicas at the edge, one in the cloud


def test_a_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conf" / "comparison").mkdir(parents=True)
    own = tmp_path / "conf" / "comparison" / "techniques.yaml"
    own.write_text(
        "scenario: [fleet=single]\nbaseline: here\nalternatives:\n  here: {}\n  there: {pool: {xpu: l40s}}\n"
    )
    words = [*SMALL, "figures=false", "--json", "--config-dir", str(tmp_path / "conf"), f"out={tmp_path / 'out'}"]
    done = run(["compare", "techniques", *words], capsys)
    assert (done.status, done.err) == (0, "")
    cells = json.loads(done.out)["metrics"]["tpot_mean_s"]["alternatives"]
    assert cells["there"]["difference"]["value"] > 0.0


def test_applications_answer_the_same_questions_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["seeds=2", "requests=200", *SMALL[2:], "figures=false", f"out={tmp_path / 'out'}"]
    done = run(["compare", "applications", *words], capsys)
    assert done.status == 0
    found: dict[str, Any] = means(tmp_path / "out")
    assert list(found) == ["plain", "rag", "fine_tuned", "long_context"]
    assert found["plain"]["answer_quality"] <= found["fine_tuned"]["answer_quality"] <= found["rag"]["answer_quality"]
    assert found["rag"]["answer_quality"] <= found["long_context"]["answer_quality"]
    assert found["rag"]["ttft_mean_s"] > found["plain"]["ttft_mean_s"]
    assert found["rag"]["usd_per_1000_requests"] > found["plain"]["usd_per_1000_requests"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["techniques", "techniques=weights_f8"], ["techniques='weights_f8'", "weights_fp8"]),
        (["techniques", "baseline=basis"], ["baseline='basis'", "base"]),
        (["techniques", "pool=clod"], ["pool='clod'", "did you mean cloud"]),
        (["techniques", "routers=spillover"], ["routers='spillover'", "hybridfleet compare routers"]),
        (["applications", "pool=cloud"], ["pool='cloud'", "hybridfleet compare techniques"]),
        (["applications", "fleet=moon"], ["fleet='moon'"]),
        (["technique"], ["compare='technique'", "did you mean techniques"]),
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
    done = run(["compare", *words], capsys)
    one_line(done, *named)
    assert not list(tmp_path.iterdir())


def test_keys_that_nobody_reads_are_refused(tmp_path: Path) -> None:
    (tmp_path / "comparison").mkdir()
    file = tmp_path / "comparison" / "techniques.yaml"
    file.write_text("baseline: a\nalternatives: {a: {pools: {precision: fp8}}}\n")
    with pytest.raises(InputError, match="pools"):
        read_comparison("techniques", (tmp_path,))
    file.write_text("baseline: b\nalternatives: {a: {}}\n")
    with pytest.raises(InputError, match="baseline"):
        read_comparison("techniques", (tmp_path,))

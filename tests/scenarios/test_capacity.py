"""``hybridfleet capacity``: a rate that can be worked out by hand, one replica fewer, traces, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.scenarios.command import run
from tests.scenarios.records import one_line

QUIET = ("figures=false", "progress=none", "processes=1")
#: Requests one at a time and evenly spaced: a queue without chance, whose capacity is replicas / service time.
BY_HAND = (
    *("fleet=single", "workload=constant", "workload/lengths=fixed", "workload.lengths.prompt=100"),
    *("workload.lengths.output=20", "fleet.engine.max_num_seqs=1", "router=round_robin", "fleet.replicas=2", *QUIET),
)


def found(capsys: pytest.CaptureFixture[str], out: Path, *words: str) -> dict[str, Any]:
    done = run(["capacity", *words, f"out={out}", "--json"], capsys)
    assert (done.status, done.err) == (0, "")
    document: dict[str, Any] = json.loads(done.out)
    assert document == json.loads((out / "capacity.json").read_text("utf-8"))
    return document


@pytest.fixture(scope="module")
def service_s(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long one request takes alone [s]."""
    from scenarios import cli

    out = tmp_path_factory.mktemp("alone") / "out"
    words = [word for word in BY_HAND if not word.startswith("processes")]
    assert cli.main(["run", *words, "workload.limit=1", "report=false", f"out={out}"]) == 0
    total = json.loads((out / "summary.json").read_text("utf-8"))["total"]
    return float(total["e2e_s"]["mean"])


def test_a_rate_by_hand_with_two_replicas_and_one(
    service_s: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = f"slo.classes=[{{name: one, e2e_s: {1.2 * service_s}}}]"
    document = found(capsys, tmp_path / "out", *BY_HAND, bound, "seeds=1", "requests=400", "target=0.95")
    both, one = document["fleets"]
    for fleet, replicas in ((both, 2), (one, 1)):
        exact = replicas / service_s
        assert fleet["replicas"] == {"single": replicas}
        assert fleet["held_rps"] <= 1.001 * exact
        assert exact < fleet["not_held_rps"] <= fleet["held_rps"] / 0.979
        assert fleet["at_held"]["held"]
        assert not fleet["at_not_held"]["held"]
    assert 0.0 < one["at_held"]["mean_kw"] < both["at_held"]["mean_kw"] <= both["at_held"]["peak_kw"]
    # rent by the clock: the second of billing is no part of it
    assert one["at_held"]["usd_per_hour"] == pytest.approx(0.5 * both["at_held"]["usd_per_hour"], rel=1e-9)


def test_a_growing_backlog_is_not_held_without_any_bound(
    service_s: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*BY_HAND, "slo.classes=[{name: none}]", "seeds=1", "requests=3000")
    both = found(capsys, tmp_path / "out", *words)["fleets"][0]
    assert both["at_not_held"]["slo_attainment"] == 1.0
    assert both["at_not_held"]["why_not"] == "backlog grows"
    assert both["held_rps"] == pytest.approx(2.0 / service_s, rel=0.03)


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from scenarios import cli

    out = tmp_path_factory.mktemp("capacity") / "out"
    words = ["fleet.sites.cloud.pools.cloud.xpu=l4", "fleet.sites.cloud.pools.cloud.replicas=2"]
    lengths = ["workload/lengths=fixed", "workload.lengths.prompt=50", "workload.lengths.output=4"]
    settings = ["seeds=2", "requests=200", "progress=none", f"out={out}"]
    assert cli.main(["capacity", *words, *lengths, *settings]) == 0
    return out


def test_one_replica_fewer_never_holds_more(hybrid: Path) -> None:
    document = json.loads((hybrid / "capacity.json").read_text("utf-8"))
    whole, edge, cloud = document["fleets"]
    assert [fleet["fleet"] for fleet in document["fleets"]] == ["all replicas", "edge: 3 of 4", "cloud: 1 of 2"]
    assert (edge["replicas"], cloud["replicas"]) == ({"edge": 3, "cloud": 2}, {"edge": 4, "cloud": 1})
    for fleet in (edge, cloud):
        assert fleet["held_rps"] <= whole["not_held_rps"]
        assert fleet["at_held"]["usd_per_hour"] < whole["at_held"]["usd_per_hour"]
    assert "edge: network energy is unknown and left out" in whole["incomplete"]
    rates = [each["rate_rps"] for each in whole["tried"]]
    held = [each["held"] for each in whole["tried"]]
    assert rates == sorted(rates)
    assert held == sorted(held, reverse=True)


def test_what_it_leaves(hybrid: Path) -> None:
    names = {path.name for path in hybrid.iterdir()}
    tables = {"capacity.json", "capacity.csv", "trials.csv", "manifest.json"}
    assert names == tables | {"capacity.svg", "capacity.png"}
    table, trials = pl.read_csv(hybrid / "capacity.csv"), pl.read_csv(hybrid / "trials.csv")
    assert table["replicas_edge"].to_list() == [4, 3, 4]
    assert set(trials["seed_number"]) == {0, 1}
    assert set(trials["requests"]) == {200}
    one = trials.filter((pl.col("fleet") == "all replicas") & (pl.col("rate_rps") == table["held_rps"][0]))
    assert one["slo_attainment"].mean() == pytest.approx(table["slo_attainment"][0])


def test_short_trials_find_the_place_and_long_ones_the_answer(
    service_s: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = f"slo.classes=[{{name: one, e2e_s: {3.0 * service_s}}}]"
    words = [word for word in BY_HAND if not word.startswith("fleet.replicas")]
    only = found(capsys, tmp_path / "out", *words, bound, "seeds=1", "requests=4000")["fleets"][0]
    assert {each["requests"] for each in only["scouted"]} == {1000.0}
    assert {each["requests"] for each in only["tried"]} == {4000.0}
    assert len(only["tried"]) < len(only["scouted"])
    assert only["held_rps"] <= 1.001 / service_s < only["not_held_rps"] * 1.001


def test_one_fewer_in_each_pool_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("fleet.sites.cloud.pools.cloud.replicas=2", "pool=all", "seeds=1", "requests=60", *QUIET)
    fleets = found(capsys, tmp_path / "out", *words)["fleets"]
    assert [fleet["replicas"] for fleet in fleets] == [{"edge": 4, "cloud": 2}, {"edge": 3, "cloud": 1}]


def test_a_trace_is_scaled_and_its_rate_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"{0.5 * i},100,20" for i in range(400)]
    trace.write_text("\n".join(["arrived_at,num_prefill_tokens,num_decode_tokens", *rows]) + "\n")
    words = [word for word in BY_HAND if not word.startswith("workload")]
    document = found(capsys, tmp_path / "out", *words, "workload=csv_trace", f"workload.path={trace}", "seeds=1")
    assert document["rate_key"] == "workload.rate_scale"
    both = document["fleets"][0]
    assert both["held_rps"] == pytest.approx(2.0 * both["at_held"]["rate_key_value"], rel=0.01)
    assert both["at_held"]["requests"] == 400


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["target=0"], ["target=0", "share"]),
        (["target=90"], ["target=90", "share"]),
        (["seeds=0"], ["seeds=0"]),
        (["requests=20"], ["requests=20", "at least 50"]),
        (["requests=few"], ["requests='few'"]),
        (["pool=egde"], ["pool='egde'", "did you mean edge"]),
        (["pool=cloud"], ["pool='cloud'", "edge | all"]),
        (["fleet=single", "pool=single"], ["pool='single'", "no pool of this fleet has two replicas"]),
        (["workload=bursts", "workload.rate=null"], ["workload.rate=None", "rate=1"]),
        (["workload=time_varying"], ["workload.rate=None", "scaled"]),
        (["workload.limit=50", "requests=50"], ["requests=50", "workload.limit says"]),
        (["workload.rate=0"], ["workload.rate=0"]),
        (["fleet=moon"], ["fleet='moon'", "hybrid"]),
        (["router=device_only", "requests=50", "seeds=1", *QUIET], ["device site"]),
        (["out=/proc/x"], ["out"]),
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
    done = run(["capacity", *words], capsys)
    one_line(done, *named)
    assert not list(tmp_path.iterdir())


def test_a_rate_that_arrivals_do_not_follow_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = tmp_path / "questions.csv"
    rows = [f"{i},{i % 2},100,20" for i in range(60)]
    names = "arrival_s,llama_3_1_8b_correct,prompt_tokens,output_tokens"
    questions.write_text("\n".join([names, *rows]) + "\n")
    words = ["workload=labelled_trace", f"workload.path={questions}", "workload.shuffle=false", "fleet=single"]
    done = run(["capacity", *words, "seeds=1", "fleet.model=llama_3_1_8b", *QUIET, f"out={tmp_path / 'out'}"], capsys)
    assert done.status == 2
    assert "workload.rate" in done.err
    assert "do not follow" in done.err
    assert not (tmp_path / "out").exists()

"""What `hybridfleet describe` says of traces."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.scenarios.command import run

DATA = Path(os.environ.get("HYBRIDFLEET_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def test_a_small_trace_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.jsonl"
    rows = [(0, 1024, 10, [1, 2]), (1000, 1024, 20, [1, 3]), (4000, 512, 30, [1])]
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    path.write_text("".join(json.dumps(dict(zip(keys, row))) + "\n" for row in rows))
    done = run(["describe", str(path), "--json"], capsys)
    assert done.status == 0
    found = json.loads(done.out)
    assert found["requests"] == 3
    assert found["span_s"] == 4.0
    assert found["rate_per_s"] == 0.5
    assert found["cv"] == pytest.approx(0.5)  # gaps of 1 s and 3 s
    assert found["output_tokens"]["p50"] == 20.0
    assert found["infinite_prefix_cache_share"] == pytest.approx((512 + 512) / 2560)


def test_the_azure_trace_has_its_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    path = DATA / "traces" / "azure2023" / "AzureLLMInferenceTrace_conv.csv"
    if not path.exists():
        pytest.skip(f"{path} is not at hand")
    done = run(["describe", str(path)], capsys)
    assert done.status == 0
    lines = dict(line.split(None, 1) for line in done.out.splitlines())
    assert lines["requests"].strip() == "19,366"
    assert lines["rate_per_s"].strip().startswith("5.53")
    assert lines["infinite_prefix_cache_share"].strip() == "does not apply"


def test_closed_loops_are_described_as_if_answers_took_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    what = ["workload=users", "workload.users=50", "workload.think.sigma=0", "workload.read_token_s=0"]
    done = run(["describe", *what, "workload.duration_s=3000"], capsys)
    assert done.status == 0
    assert "as if answers took no time" in done.out
    found = json.loads(run(["describe", *what, "workload.duration_s=3000", "--json"], capsys).out)
    assert found["requests"] == 50 * 99  # every 30 s before 3000 s, from the 30th on
    assert found["turns"]["mean"] == pytest.approx(3.3, abs=0.4)  # those of the last conversations are cut


def test_sessions_of_a_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    what = ["workload=sessions", "workload.limit=20000", "workload.duration_s=null", "workload/lengths=fixed"]
    lengths = ["workload.lengths.prompt=100", "workload.lengths.output=60", "workload.max_context_tokens=null"]
    done = run(
        ["describe", *what, *lengths, "workload.turns.mean=null", "workload.turns.weights=[0,0,1]", "--json"], capsys
    )
    assert done.status == 0
    found = json.loads(done.out)
    assert found["requests"] == 20_000
    assert found["turns"]["max"] == 3
    assert found["turns"]["mean"] == pytest.approx(3.0, rel=0.03)
    # Prompts of 356, 516, 676 tokens: 256, 416 and 576 of them were there before, but for the first conversations.
    assert found["infinite_prefix_cache_share"] == pytest.approx((256 + 416 + 576) / (356 + 516 + 676), rel=0.01)


def test_tenants_adapters_and_images_of_a_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    what = ["workload=poisson", "workload/traits=[none,tenants,adapters,images]", "workload/lengths=fixed"]
    done = run(["describe", *what, "workload.adapters.base_share=0.5", "seed=2", "--json"], capsys)
    assert done.status == 0
    found = json.loads(done.out)
    assert found["infinite_prefix_cache_share"] is None
    assert found["tenants"] == pytest.approx({"0": 0.48, "1": 0.24, "2": 0.16, "3": 0.12}, rel=0.05)
    assert found["priorities"]["0"] == found["tenants"]["3"]
    assert found["adapters"]["0"] == pytest.approx(0.5, rel=0.03)
    assert sum(found["adapters"].values()) == pytest.approx(1.0)
    assert found["images"]["share"] == pytest.approx(0.994, rel=0.01)
    tokens = 576 * found["images"]["mean"]
    assert found["images"]["share_of_prompt_tokens"] == pytest.approx(tokens / (512 + tokens), rel=1e-6)


def test_a_file_of_the_users_own_can_not_trust_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "workload").mkdir()
    (tmp_path / "workload" / "mine.yaml").write_text("# @package _global_\nplugins: [evil]\n")
    done = run(["describe", "workload=mine", "--config-dir", str(tmp_path)], capsys)
    assert done.status == 2
    assert "plugins" in done.err


@pytest.mark.parametrize(
    "overrides",
    [
        ("workload=sessions", "workload.turns.mean=0.5"),
        ("workload=sessions", "workload.think.median_s=-1"),
        ("workload=sessions", "workload.prefix.groups=0"),
        ("workload=sessions", "workload.max_context_tokens=100"),
        ("workload=sessions", "workload.trns=3"),
        ("workload=users", "workload.users=0"),
        ("workload=users", "workload.rate=3"),
        ("workload=closed_sessions", "workload.read_token_s=-1"),
        ("workload=tenants", "workload.tenants.count=none"),
        ("workload=tenants", "workload.priorities.levels=[1]"),
        ("workload=tenants", "workload.deadlines.seconds=soon"),
        ("workload=adapters", "workload.adapters.exponent=-1"),
        ("workload=multimodal", "workload.images.tokens=0.5"),
        ("workload=system_prompts", "workload.prefix.unit=0"),
        ("workload=poisson", "workload.tenants={size:3}"),
        ("workload=nothing",),
        ("x.csv", "workload=poisson"),
    ],
)
def test_bad_keys_of_a_scenario(overrides: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["describe", *overrides], capsys)
    assert done.status == 2
    assert len(done.err.splitlines()) == 1
    assert overrides[-1].partition("=")[0].partition(".csv")[0] in done.err


@pytest.mark.parametrize(
    ("arguments", "named"), [(["missing.csv"], "missing.csv"), ([], "FILE"), (["x", "--bad"], "--bad")]
)
def test_bad_input(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["describe", *arguments], capsys)
    assert done.status == 2
    assert len(done.err.splitlines()) == 1
    assert named in done.err


def test_labels_are_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("weak_correct,strong_correct\n1,1\n0,1\n0,0\n1,\n1,0\n")
    done = run(["describe", "workload=labelled_trace", f"workload.path={path}", "--json"], capsys)
    found = json.loads(done.out)
    assert found["correct"] == {"weak": 0.6, "strong": 0.5}
    assert found["weak and strong"]["either correct"] == 0.75
    assert found["weak and strong"]["second alone"] == 0.25
    assert found["weak and strong"]["correlation"] == pytest.approx(0.0, abs=1e-6)

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


@pytest.mark.parametrize(
    ("arguments", "named"), [(["missing.csv"], "missing.csv"), ([], "FILE"), (["x", "--bad"], "--bad")]
)
def test_bad_input(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["describe", *arguments], capsys)
    assert done.status == 2
    assert len(done.err.splitlines()) == 1
    assert named in done.err

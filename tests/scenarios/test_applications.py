"""The commands of docs/applications.md run from end to end."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.command import run

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "applications.md"
SHORT = ["figures=false", "report=false", "progress=none", "workload.duration_s=30"]


def commands() -> list[str]:
    found = re.findall(r"^hybridfleet (run .*)$", DOCUMENT.read_text(), re.M)
    assert len(found) >= 8
    return found


@pytest.mark.parametrize("line", commands())
def test_every_documented_run_completes(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    total = ran(shlex.split(line), tmp_path, capsys)
    assert total["requests"]["completed"] == total["requests"]["arrived"] > 0
    if "slo=voice" in line:
        assert total["first_audio_s"]["p50"] > total["ttft_s"]["p50"]
    if "slo=batch" in line:
        assert total["deadlines"] == total["requests"]["counted"]
    if "reasoning" in line:
        assert total["ttfv_s"]["p50"] > total["ttft_s"]["p50"]
    if "fleet=rag" in line:
        assert total["legs_per_request"] == 22.0  # embedding, 20 candidates, answer
        assert any("vector search" in each for each in total["incomplete"])


def ran(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    out = tmp_path / "run"
    done = run([*arguments, *SHORT, f"out={out}"], capsys)
    assert done.status == 0, done.err
    return json.loads((out / "summary.json").read_text())["total"]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["router=rag"], "router.answer"),
        (["fleet=rag", "router.chunks=0"], "router.chunks"),
        (["fleet=rag", "router.rerank=moon"], "router.rerank"),
        (
            ["fleet=rag", "router.documents.unit=24", "router.documents.chunk_tokens=500"],
            "router.documents.chunk_tokens",
        ),
        (["fleet=rag", "router.documents.unit=8"], "workload prefix unit"),
        (["slo=voice", "slo.classes.0.sentence_tokens=1.5"], "slo.classes[0].sentence_tokens"),
        (["fleet=cloud", "router=long_context", "router.documents.count=1000"], "tokens"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(["run", "workload=questions", *arguments, *SHORT, f"out={tmp_path / 'run'}"], capsys)
    assert done.status == 2
    assert len(done.err.strip().splitlines()) == 1
    assert key in done.err

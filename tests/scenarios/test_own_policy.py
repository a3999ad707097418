"""The policy that docs/policies.md shows: it is the file beside it, and runs as written there."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from tests.scenarios.command import run

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "my_policies.py"
SETTINGS = DOCS / "examples" / "my_conf" / "router" / "move_when_slow.yaml"


def test_the_page_shows_the_files() -> None:
    page = (DOCS / "policies.md").read_text()
    assert f"```python\n{EXAMPLE.read_text()}```" in page
    assert f"{SETTINGS.read_text()}```" in page


def test_it_runs_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    command = [
        "run", "--config-dir", str(DOCS / "examples" / "my_conf"), "router=move_when_slow", "plugins=[my_policies]",
        "router.limit_s=8.0", "fleet=hybrid", "workload=poisson", "workload.limit=60", "figures=false", "progress=none",
        f"out={tmp_path / 'run'}",
    ]  # fmt: skip
    done = run(command, capsys)
    assert done.status == 0, done.err
    requests = pl.read_parquet(tmp_path / "run" / "requests.parquet")
    legs = pl.read_parquet(tmp_path / "run" / "legs.parquet")
    moved = requests.filter(pl.col("legs") == 2)
    assert 0 < len(moved) < 60
    assert (requests["status"] == "completed").all()
    assert (requests["tokens_wasted"] == 0).all()
    assert legs["output_tokens"].sum() == requests["output_tokens"].sum()
    stayed = requests.filter(pl.col("legs") == 1)
    assert stayed["e2e_s"].max() < 8.5
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["total"]


def test_it_is_not_run_without_being_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(DOCS / "examples" / "my_conf")
    done = run(["run", "--config-dir", folder, "router=move_when_slow", f"out={tmp_path / 'run'}"], capsys)
    assert done.status == 2
    assert "plugins" in done.err
    assert not list(tmp_path.iterdir())

"""The run folder: whole or not there at all, and the same bytes for the same run."""

from __future__ import annotations

import hashlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import scenarios.store as store
from scenarios.store import check_out, write_run
from sim.errors import InputError
from sim.results import SPAN_COLUMNS, Result
from tests.analysis.conftest import make_result

CONFIG = {"name": "test", "seed": 3, "workload": {"rate": float("inf"), "ids": (1, 2)}}


@pytest.fixture(scope="module")
def result() -> Result:
    return make_result(120)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_run_folder_has_everything(result: Result, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("a,b\n")
    out = tmp_path / "deep" / "run"
    began = datetime(2026, 1, 2, tzinfo=UTC)
    summary = write_run(
        out,
        result,
        {**CONFIG, "out": str(out)},
        overrides=["seed=3", "+workload.rate=inf", f"out={out}"],
        inputs=[trace],
        provenance={"assumed": 4},
        started=began,
    )
    assert {"requests.parquet", "timeline.parquet", "gaps.parquet", "summary.json", "manifest.json"} <= files(out)
    assert {"report.html", "figures/latency.svg", "figures/qoe.png", "figures/power_column.pdf"} <= files(out)
    assert "spans.parquet" not in files(out)
    assert files(tmp_path) >= {"deep", "deep/run"}
    assert not [name for name in files(tmp_path) if "partial" in name]
    assert json.loads((out / "summary.json").read_text()) == summary
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["config"] == {"name": "test", "seed": 3, "workload": {"rate": None, "ids": [1, 2]}}
    assert manifest["overrides"] == ["seed=3", "+workload.rate=inf"]
    assert manifest["inputs_sha256"] == {str(trace): hashlib.sha256(b"a,b\n").hexdigest()}
    assert manifest["provenance"] == {"assumed": 4}
    assert manifest["seed"] == result.seed
    assert manifest["times"]["started"] == "2026-01-02T00:00:00+00:00"
    assert manifest["packages"]["numpy"] == np.__version__
    assert len(manifest["config_sha256"]) == 64


def test_equal_runs_give_equal_bytes_but_for_time_and_speed(result: Result, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name, make_result(120), {**CONFIG, "out": name}, figures=False)
    for name in ("requests.parquet", "timeline.parquet", "gaps.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    for name, differs in (("summary.json", "performance"), ("manifest.json", "times")):
        one, other = (json.loads((tmp_path / folder / name).read_text()) for folder in ("a", "b"))
        assert one.pop(differs).keys() == other.pop(differs).keys()
        assert json.dumps(one) == json.dumps(other)


def test_another_config_has_another_hash(result: Result, tmp_path: Path) -> None:
    hashes = set()
    for rate in (1.0, 2.0):
        write_run(tmp_path / str(rate), result, {"rate": rate}, figures=False, report=False)
        hashes.add(json.loads((tmp_path / str(rate) / "manifest.json").read_text())["config_sha256"])
    assert len(hashes) == 2


def test_spans_are_written_when_kept(tmp_path: Path) -> None:
    kept = make_result(30)
    kept.spans = {name: np.zeros(4, dtype=dtype) for name, (dtype, _, _) in SPAN_COLUMNS.items()}
    write_run(tmp_path / "run", kept, CONFIG, figures=False, report=False)
    assert {"spans.parquet"} <= files(tmp_path / "run")
    assert not {"report.html", "figures"} & files(tmp_path / "run")


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_exists_is_never_touched(result: Result, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "run"
    if kind == "folder":
        out.mkdir()
    elif kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    before = files(tmp_path)
    for act in (check_out, lambda path: write_run(path, result, CONFIG, figures=False, report=False)):
        with pytest.raises(InputError, match=r"out='.*run' is not valid; accepted: a folder that does not exist yet"):
            act(out)
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"nothing can be made in .*file"):
        check_out(tmp_path / "file" / "run")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no file system here that takes no files")
def test_a_folder_that_nobody_may_fill_is_refused() -> None:
    """Permissions alone do not tell: they let root write there."""
    with pytest.raises(InputError, match="nothing can be made in /proc"):
        check_out(Path("/proc/x"))


def test_a_relative_name_is_fine(monkeypatch: pytest.MonkeyPatch, result: Result, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    check_out(Path("run"))
    write_run(Path("run"), result, CONFIG, figures=False, report=False)
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError, MemoryError])
def test_whatever_stops_the_writing_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, result: Result, tmp_path: Path, stop: type[BaseException]
) -> None:
    def fail(path: Path, value: object) -> None:
        raise stop

    monkeypatch.setattr(store, "write_json", fail)
    with pytest.raises(stop):
        write_run(tmp_path / "new" / "run", result, CONFIG)
    assert files(tmp_path) == set()


def test_a_folder_that_appears_meanwhile_is_kept(
    monkeypatch: pytest.MonkeyPatch, result: Result, tmp_path: Path
) -> None:
    def slow(*args: object) -> dict[str, object]:
        (tmp_path / "run").mkdir()
        return {}

    monkeypatch.setattr(store, "build_manifest", slow)
    with pytest.raises(InputError, match="does not exist yet"):
        write_run(tmp_path / "run", result, CONFIG, figures=False, report=False)
    assert files(tmp_path) == {"run"}


def test_remains_of_a_killed_process_are_no_obstacle(result: Result, tmp_path: Path) -> None:
    stale = tmp_path / f".run.partial-{os.getpid()}"
    stale.mkdir()
    (stale / "rubbish").write_text("")
    write_run(tmp_path / "run", result, CONFIG, figures=False, report=False)
    assert "rubbish" not in files(tmp_path / "run")


def test_writing_20000_requests_takes_at_most_1_5_s(tmp_path: Path) -> None:
    large = make_result(20_000)
    write_run(tmp_path / "warm", make_result(20), CONFIG, figures=False, report=False)  # imports
    start = time.perf_counter()
    write_run(tmp_path / "run", large, CONFIG, figures=False)
    assert time.perf_counter() - start < 1.5

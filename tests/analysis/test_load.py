"""Run folders back as tables: what was written is what is read."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.load import Run, frame, load_run, load_sweep
from analysis.view import view
from scenarios.store import write_run
from sim.errors import InputError
from sim.results import REQUEST_COLUMNS, STATUSES, TIMELINE_COLUMNS, Result
from tests.analysis.conftest import make_result


def write(out: Path, result: Result, config: dict[str, Any], overrides: tuple[str, ...] = ()) -> None:
    write_run(out, result, config, overrides=overrides, figures=False, report=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, result: Result) -> Run:
    out = tmp_path_factory.mktemp("load") / "run"
    write(out, result, {"seed": 1})
    return load_run(out)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs 0, 2 and 10, which differ in router, rate and a list."""
    root = tmp_path_factory.mktemp("sweep")
    for name, router, rate in (("10", "b", 8), ("0", "a", 2.5), ("2", "b", 2.5)):
        config = {
            "router": {"name": router, "about": {"rate": name}},
            "workload": {"rate": rate, "cv": 1.0},
            "plugins": [name],
            "out": name,
        }
        write(root / name, make_result(60, seed=len(name)), config, (f"router={router}", f"workload.rate={rate}"))
    return root


def test_tables_have_every_column_and_readable_codes(result: Result, run: Run) -> None:
    assert set(run.requests.columns) == set(REQUEST_COLUMNS)
    assert set(run.timeline.columns) == set(TIMELINE_COLUMNS)
    assert run.requests["status"].to_list() == [STATUSES[code] for code in result.requests["status"]]
    names = [pool.name for pool in result.pools]
    assert run.requests["pool"].to_list() == [names[c] if c >= 0 else None for c in result.requests["pool"]]
    assert run.requests["slo_class"].dtype == pl.Enum(["chat", "batch"])
    assert run.requests["ttft_s"].null_count() == np.isnan(result.requests["ttft_s"]).sum() > 0
    assert run.spans is None
    assert run.summary["total"]["requests"]["arrived"] == len(result)


def test_a_folder_shows_the_same_view_as_the_result(result: Result, run: Run) -> None:
    fresh, stored = view(result), view(run)
    for table in ("requests", "timeline"):
        for name, values in getattr(fresh, table).items():
            np.testing.assert_array_equal(getattr(stored, table)[name], values)
    assert stored.gaps.keys() == fresh.gaps.keys()
    for key, sample in fresh.gaps.items():
        np.testing.assert_array_equal(stored.gaps[key].value_s, sample.value_s)
        np.testing.assert_array_equal(stored.gaps[key].count, sample.count)
    assert (stored.pools, stored.slos) == (fresh.pools, fresh.slos)


def test_frame_without_names_keeps_codes(result: Result) -> None:
    assert frame(result.timeline)["pool"].to_list() == result.timeline["pool"].tolist()


def test_sweep_has_a_row_a_run_in_order(sweep: Path) -> None:
    table = load_sweep(sweep)
    assert table["run"].to_list() == ["0", "2", "10"]
    assert table["router"].to_list() == ["a", "b", "b"]
    assert table["workload.rate"].to_list() == [2.5, 2.5, 8.0]
    assert "workload.cv" not in table.columns  # the same in all
    assert "out" not in table.columns
    assert "router.about.rate" not in table.columns  # words about a setting are none
    for key in ("ttft_s_p99", "carbon_kg_total", "usd_per_mtok", "requests_completed", "performance_wall_s"):
        assert table[key].dtype.is_numeric()
    summary = json.loads((sweep / "2" / "summary.json").read_text())
    assert table["ttft_s_p99"][1] == summary["total"]["ttft_s"]["p99"]


def test_a_group_that_was_swept_is_one_column(tmp_path: Path, result: Result) -> None:
    for name, fleet in (("0", {"pue": 1.1, "tp": 1}), ("1", {"pue": 1.2, "tp": 2})):
        config = {"fleet": fleet, "router": {"name": name}, "seed": 3}
        write(tmp_path / name, result, config, (f"fleet={name}", "seed=3"))
    table = load_sweep(tmp_path)
    assert table.columns[:2] == ["run", "fleet"]
    assert not {"fleet.pue", "fleet.tp", "router.name", "seed"} & set(table.columns)


def test_runs_that_were_asked_for_alike_show_every_key_that_differs(tmp_path: Path, result: Result) -> None:
    for name in ("0", "1"):
        write(tmp_path / name, result, {"plugins": [name], "seed": 3}, ("seed=3",))
    table = load_sweep(tmp_path)
    assert table["plugins"].to_list() == ["0", "1"]
    assert "seed" not in table.columns


def test_sweep_by_pool(sweep: Path) -> None:
    table = load_sweep(sweep, by_pool=True)
    assert table["cloud_h100.slo_attainment"].null_count() == 0
    assert table["edge_l4.xpu"].to_list() == ["l4"] * 3


def test_sweep_skips_what_is_not_whole_and_says_so(sweep: Path, tmp_path: Path) -> None:
    root = tmp_path / "sweep"
    shutil.copytree(sweep, root)
    shutil.copytree(root / "0", root / ".3.partial-17")
    (root / "4").mkdir()
    (root / "10" / "summary.json").write_text("{")
    (root / "multirun.yaml").write_text("")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = load_sweep(root)
    assert table["run"].to_list() == ["0", "2"]
    told = " ".join(str(warning.message) for warning in caught)
    assert len(caught) == 3
    for text in (".3.partial-17", "summary.json is missing", "summary.json is not JSON"):
        assert text in told


def test_settings_of_mixed_types_become_text(tmp_path: Path) -> None:
    for name, rate in (("0", 2), ("1", "fast"), ("2", None)):
        write(tmp_path / name, make_result(20), {"rate": rate, "on": name == "0"})
    table = load_sweep(tmp_path)
    assert table["rate"].to_list() == ["2", "fast", None]
    assert table["on"].to_list() == [True, False, False]


@pytest.mark.parametrize("load", [load_run, load_sweep])
def test_no_run_is_one_clear_error(load: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="folder"):
        load(tmp_path)


def test_a_missing_table_is_named(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "timeline.parquet").unlink()
    with pytest.raises(InputError, match=r"timeline\.parquet is missing"):
        load_run(tmp_path / "run")

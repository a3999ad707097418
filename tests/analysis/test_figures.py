"""Figures: every curve is bounded, every axis has a unit, and corners draw without complaint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.figures import NAMES, SITES, captions, column_of, write_figures
from analysis.plots import style
from analysis.plots.qoe import rolling_mean
from analysis.plots.timeline import edges_s, series
from analysis.view import view
from sim.results import Result
from tests.analysis.conftest import BINS, make_result


def draw(name: str, result: Result, width: float = style.PAGE) -> Figure:
    with style.house():
        figure: Figure = import_module(f"analysis.plots.{name}").draw(view(result), width)
    return figure


@pytest.fixture(scope="module")
def large() -> Result:
    return make_result(5000)


@pytest.mark.parametrize("name", NAMES)
def test_axes_have_units_and_curves_at_most_1000_points(name: str, large: Result) -> None:
    figure = draw(name, large)
    for axes in figure.axes:
        assert axes.get_title(loc="left")
        assert "[" in axes.get_xlabel()
        assert axes.get_ylabel() or name == "breakdown"
        for line in axes.lines:
            assert len(line.get_xdata()) <= style.MAX_POINTS
        for patch in axes.patches:
            assert len(patch.get_path().vertices) <= 2 * style.MAX_POINTS + 2  # two corners a bin
    assert figure.get_figwidth() == 7.0


@pytest.mark.parametrize("name", NAMES)
def test_one_column_stacks_the_panels(name: str, result: Result) -> None:
    figure = draw(name, result, style.ONE_COLUMN)
    assert figure.get_figwidth() == 3.5
    assert len({axes.get_subplotspec().colspan.start for axes in figure.axes}) == 1


def test_replicas_are_shown_where_a_plan_changes_them() -> None:
    run = make_result()
    assert [axes.get_title(loc="left") for axes in draw("load", run).axes][-1] == "Token rate"
    run.timeline["replicas"][BINS // 2 : BINS] = 1.0  # half the bins of the first pool, which has two
    panel = draw("load", run).axes[-1]
    assert panel.get_title(loc="left") == "Replicas"
    ends = [patch.get_path().vertices[:, 1].max() for patch in panel.patches] or [
        line.get_ydata().max() for line in panel.lines
    ]
    assert max(ends) == 2.0


def test_nothing_overlaps_or_is_clipped(result: Result) -> None:
    for name in NAMES:
        for width in (style.PAGE, style.ONE_COLUMN):
            figure = draw(name, result, width)
            with style.house():
                figure.draw_without_rendering()
            page = figure.bbox
            boxes = [axes.get_tightbbox() for axes in figure.axes] + [key.get_window_extent() for key in figure.legends]
            for index, box in enumerate(boxes):
                assert box.x0 >= page.x0 - 1, name
                assert box.x1 <= page.x1 + 1, name
                assert box.y0 >= page.y0 - 1, name
                assert box.y1 <= page.y1 + 1, name
                for other in boxes[index + 1 :]:
                    apart = box.x1 <= other.x0 + 3 or other.x1 <= box.x0 + 3
                    assert apart or box.y1 <= other.y0 + 3 or other.y1 <= box.y0 + 3, (name, width)


@pytest.mark.parametrize("make", [lambda: make_result(0, end_s=10.0), lambda: make_result(1), lambda: make_result(3)])
@pytest.mark.parametrize("name", NAMES)
def test_tiny_runs_draw(make: Callable[[], Result], name: str) -> None:
    figure = draw(name, make())
    with style.house():
        figure.draw_without_rendering()
    assert all(axes.get_title(loc="left") for axes in figure.axes)


def test_figures_are_written_for_page_and_column(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.figures.NAMES", ("latency", "power"))  # two are enough to compare bytes
    for folder in ("a", "b"):
        paths = write_figures(result, tmp_path / folder)
        assert list(paths) == ["latency", "power"]
    for path in paths.values():
        files = [path, path.with_suffix(".png"), column_of(path), column_of(path).with_suffix(".pdf")]
        assert [file.read_bytes() for file in files] == [(tmp_path / "a" / file.name).read_bytes() for file in files]
        assert all(file.stat().st_size > 1000 for file in files)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [style.PAGE, style.ONE_COLUMN])
def test_many_pools_with_long_names_fit(name: str, width: float, result: Result) -> None:
    crowd = make_result(60)
    one = {name: values[crowd.timeline["pool"] == 0] for name, values in crowd.timeline.items()}
    crowd.timeline = {name: np.tile(values, 12) for name, values in one.items()}
    crowd.timeline["pool"] = np.repeat(np.arange(12, dtype=np.int16), BINS)
    crowd.pools = [replace(crowd.pools[i % 2], name=f"pool_{i}_of_a_rather_long_name") for i in range(12)]
    figure = draw(name, crowd, width)
    with style.house():
        figure.draw_without_rendering()
    assert min(axes.get_position().width * width for axes in figure.axes) > 0.8


def test_unknown_cost_is_said_in_the_figure(partly_unknown: Result) -> None:
    texts = [text.get_text() for axes in draw("breakdown", partly_unknown).axes for text in axes.texts]
    assert "unknown" in texts
    assert any("embodied unknown" in text for text in texts)


def test_slo_bounds_are_drawn_where_they_are(result: Result) -> None:
    ttft, tpot, itl, e2e = draw("latency", result).axes
    verticals = [
        {line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2} for axes in (ttft, tpot, itl, e2e)
    ]
    assert verticals == [{1.0, 10.0}, {0.05, 0.2}, {0.05, 0.2}, set()]


def test_bars_add_up_to_the_summary(result: Result) -> None:
    energy = draw("breakdown", result).axes[0]
    assert energy.get_xlabel() == "Facility energy [Wh]"
    drawn = sum(bar.get_width() for bar in energy.patches)
    assert drawn == pytest.approx(view(result).summary["total"]["energy_kwh"] * 1e3)


def test_rolling_mean_is_the_mean_of_the_window(result: Result) -> None:
    seen = view(result)
    mask = result.requests["pool"] == 0
    centres, means = rolling_mean(seen, "slo_met", mask, result.end_s)
    arrival, met = result.requests["arrival_s"], result.requests["slo_met"]
    half = 0.025 * arrival[-1]
    for index in (0, 140, 299):
        inside = mask & (np.abs(arrival - centres[index]) <= half)
        assert means[index] == pytest.approx(met[inside].mean())


def test_merged_bins_keep_the_time_weighted_mean(result: Result) -> None:
    long = make_result(50)
    copies = 40  # 2,400 bins a pool
    for pool_rows in [long.timeline]:
        order = np.argsort(np.tile(pool_rows["pool"], copies), kind="stable")
        long.timeline = {name: np.tile(values, copies)[order] for name, values in pool_rows.items()}
    step = long.timeline["bin_s"][0]
    for pool in (0, 1):
        mine = long.timeline["pool"] == pool
        long.timeline["t_s"][mine] = step * np.arange(BINS * copies)
    seen = view(long)
    edges = edges_s(seen)
    assert len(edges) == style.MAX_BINS + 1
    for pool, means in enumerate(series(seen, "power_w")):
        energy = long.timeline["energy_j"][long.timeline["pool"] == pool].sum()
        assert (means * np.diff(edges)).sum() == pytest.approx(energy)


@pytest.mark.parametrize(("end_s", "unit"), [(100.0, "s"), (200.0, "min"), (3600.0, "min"), (20e3, "h"), (1e6, "d")])
def test_time_axis_reads_well(end_s: float, unit: str) -> None:
    assert style.TimeAxis.of(end_s).unit == unit


def test_every_figure_has_a_caption() -> None:
    assert all(len(text) > 40 for text in captions().values())
    assert list(captions()) == [*NAMES, SITES]

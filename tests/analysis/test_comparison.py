"""Comparisons: intervals by hand and by another route, ties, and what is unknown."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from analysis.comparison import Metric, Row, compare, describe, flat, measures
from analysis.comparison_table import print_comparison, with_interval
from analysis.metrics import summarize
from analysis.plots import comparison as plot
from analysis.stats import interval, paired
from sim.results import Result

COST = Metric("usd", "USD", "low", relative=True)
QUALITY = Metric("quality", "correct", "high", 100.0)


def rows(**by_name: list[float | None]) -> dict[str, list[Row]]:
    """Alternatives whose cost is as given, and their quality a hundredth of it."""
    return {
        name: [{"usd": v, "quality": None if v is None else v / 100, "completed_share": 1.0} for v in values]
        for name, values in by_name.items()
    }


def test_an_interval_by_the_table_of_t() -> None:
    # Five values, four degrees of freedom: t is 2.776; mean 3, s = sqrt(2.5).
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.half_width == pytest.approx(2.776 * (2.5 / 5) ** 0.5, rel=1e-3)
    assert (found.low, found.high) == (found.mean - found.half_width, found.mean + found.half_width)


def test_one_value_has_no_interval() -> None:
    found = interval([4.0])
    assert (found.mean, found.half_width, found.low, found.holds_zero) == (4.0, None, None, None)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    held = [interval((rng.normal(0.0, 2.0, 5)).tolist()).holds_zero for _ in range(4000)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


def test_pairing_takes_away_what_seeds_share() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(100.0, 20.0, 6)
    one, other = (shared + rng.normal(0.0, 0.1, 6)).tolist(), (shared + 1.0).tolist()
    difference = paired(other, one)
    assert difference.holds_zero is False
    assert difference.half_width < 0.05 * interval(one).half_width


def test_pairs_need_the_same_seeds() -> None:
    with pytest.raises(ValueError, match="pair"):
        paired([1.0, 2.0], [1.0])


def test_best_tie_and_worse() -> None:
    found = compare(rows(dear=[5.0, 5.2, 5.1], cheap=[1.0, 2.0, 3.0], alike=[1.3, 1.9, 2.9]), COST)
    assert found.reference == "cheap"
    assert {name: cell.verdict for name, cell in found.cells.items()} == {
        "dear": "worse",
        "cheap": "reference",
        "alike": "tie",
    }


def test_the_best_of_a_quality_is_the_highest() -> None:
    assert compare(rows(low=[1.0, 2.0], high=[2.0, 3.0]), QUALITY).reference == "high"


def test_a_named_baseline_can_be_beaten() -> None:
    found = compare(rows(base=[3.0, 3.1], cheap=[1.0, 1.1]), COST, baseline="base")
    assert found.reference == "base"
    assert found.cells["cheap"].verdict == "better"
    assert found.cells["cheap"].difference.mean == pytest.approx(-2.0)


def test_unknown_is_no_zero_and_never_ranked() -> None:
    found = compare(rows(known=[5.0, 5.0], never=[None, None], once=[1.0, None]), COST)
    assert found.reference == "known"  # not one that would win with a zero, nor one that is known of a lucky seed
    assert (found.cells["never"].mean, found.cells["never"].known) == (None, 0)
    assert (found.cells["once"].mean.mean, found.cells["once"].known, found.cells["once"].difference) == (1.0, 1, None)
    assert {found.cells[name].verdict for name in ("never", "once")} == {"unknown"}


def test_where_all_is_unknown_nobody_is_best() -> None:
    assert compare(rows(one=[None, None], two=[None, None]), COST).reference is None
    assert compare(rows(one=[None, None], two=[1.0, 2.0]), COST, baseline="one").reference is None


def test_documents_are_json_and_rows() -> None:
    column = compare(rows(a=[1.0, 2.0], b=[None, None]), COST)
    json.dumps(describe(column), allow_nan=False)
    assert [(row["alternative"], row["metric"], row["verdict"]) for row in flat([column])] == [
        ("a", "usd", "reference"),
        ("b", "usd", "unknown"),
    ]


def test_the_table_says_what_is_unknown_tied_and_refused() -> None:
    file = io.StringIO()
    many = rows(best=[1.0, 1.1], tied=[0.95, 1.17], dear=[2.0, 2.1], dark=[None, None])
    print_comparison(many, [compare(many, COST)], {"other": "no device"}, ["a link"], file)
    lines = [line.strip() for line in file.getvalue().splitlines()]
    below = {line.split()[0]: after for line, after in itertools.pairwise(lines) if line}
    assert "unknown" in next(line for line in lines if line.startswith("dark"))
    assert (below["tied"], below["best"], below["dear"]) == ("tie", "reference", "+95.24 ±0.00 %")
    assert "not compared: other: no device" in file.getvalue()
    assert "not in the totals: a link" in file.getvalue()


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [(-0.00753, 0.00043, "-0.0075 ±0.0004"), (12.3, 1.4, "+12 ±1"), (1234.0, 20.0, "+1,234 ±20"), (1.0, 0.0, "+1.00")],
)
def test_differences_are_told_to_the_digit_that_is_known(mean: float, half: float, text: str) -> None:
    assert with_interval(mean, half).startswith(text)


def test_measures_are_the_summary_s_per_thousand(result: Result) -> None:
    summary = summarize(result)
    row, total = measures(result, summary), summary["total"]
    done = total["requests"]["completed"]
    assert row["usd_per_1000_requests"] == pytest.approx(1e3 * total["cost_usd"] / done)
    assert row["slo_attainment"] == total["slo_attainment"]
    parts = total["parts"]["cost_usd"]
    waiting = (parts["idle"] or 0.0) + (parts["boot"] or 0.0)
    assert row["usd_active_per_1000_requests"] == pytest.approx(1e3 * (total["cost_usd"] - waiting) / done)


def test_the_figure_draws_what_is_known(tmp_path: Path) -> None:
    keys = {key for _, *both in plot.PANELS for key in both} | {plot.COLOUR, plot.SIZE}
    values = {"a": 1.0, "b": 1.0, "c": 2.0, "d": None}
    many = {name: [dict.fromkeys(keys, v), dict.fromkeys(keys, v)] for name, v in values.items()}
    columns = [compare(many, Metric(key, key, "low")) for key in sorted(keys)]
    paths = plot.write("routers", tmp_path, columns)
    assert all(path.stat().st_size > 1000 for path in paths)
    figure = plot.draw(columns)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["1, 2", "3"]  # two that lie on each other share a label; the unknown has none

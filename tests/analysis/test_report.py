"""The report and the table say what the summary says, and need nothing but themselves."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from analysis.metrics import summarize
from analysis.report import command, write_report
from analysis.table import headings, number, percent, print_table, rows
from scenarios.store import build_manifest, write_run
from sim.results import Result
from tests.analysis.conftest import make_result

OVERRIDES = ("router=spillover", "note=a b<c>")


class Checker(HTMLParser):
    """Collects links, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in ("meta", "img", "source", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, partly_unknown: Result) -> str:
    out = tmp_path_factory.mktemp("report") / "run"
    config = {"name": "<b>demo</b>", "workload": {"rate": 2}}
    write_run(out, partly_unknown, config, overrides=OVERRIDES, provenance={"assumed": 7, "measured": 2})
    return (out / "report.html").read_text(encoding="utf-8")


def printed(summary: dict[str, Any]) -> str:
    stream = io.StringIO()
    print_table(summary, stream)
    return stream.getvalue()


def test_report_is_self_contained_and_well_formed(page: str) -> None:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(checker.links) == 10
    assert all(link.startswith("data:image/svg+xml;base64,") for link in checker.links)
    assert "<script" not in page
    assert "url(" not in page
    assert "@import" not in page


def test_report_says_what_is_unknown_assumed_and_how_to_repeat(page: str) -> None:
    assert "&lt;b&gt;demo&lt;/b&gt;" in page
    assert "<b>demo" not in page
    assert "cloud_h100: embodied carbon unknown" in page
    assert re.search(r"<td>assumed</td><td>7</td>", page)
    assert "hybridfleet run router=spillover &#x27;note=a b&lt;c&gt;&#x27;" in page
    for text in ("die+memory", "life-cycle", "rent", "seed 1", "SHA-256", "10.0 s until the end"):
        assert text in page


def test_report_shows_the_numbers_of_the_summary(result: Result, tmp_path: Path) -> None:
    summary = summarize(result)
    write_report(tmp_path / "r.html", summary, build_manifest(result, {}, (), (), None, None), {})
    page = (tmp_path / "r.html").read_text()
    total = summary["total"]
    for value in (total["token_qoe"], total["usd_per_mtok"], total["g_per_mtok"], total["j_per_token"]):
        assert f"<b>{number(value)} <small>" in page
    assert f"<b>{100 * total['slo_attainment']:.2f} <small>%" in page
    assert "<figure>" not in page
    assert "started from Python" in page


def test_command_quotes_for_the_shell() -> None:
    assert command({"config": {"a": 1}, "overrides": ["x=1", "y=a b"]}) == "hybridfleet run x=1 'y=a b'"
    assert command({"config": {}, "overrides": []}) is None


def test_table_shows_units_and_fits(result: Result, partly_unknown: Result) -> None:
    for summary in (summarize(result), summarize(partly_unknown)):
        text = printed(summary)
        assert max(map(len, text.splitlines())) <= 100
        for unit in ("[%]", "[ms]", "[s]", "[USD]", "[Wh]", "[g]"):
            assert unit in text
        for row in rows(summary):
            assert row.label in text
            assert all(cell in text for cell in row.cells)
    assert "not in the totals: cloud_h100: cost unknown" in text


def test_table_says_unknown_never_zero(partly_unknown: Result) -> None:
    table = {row.label: row.cells for row in rows(summarize(partly_unknown))}
    assert [name for name, _ in headings(summarize(partly_unknown))] == ["edge_l4", "cloud_h100", "total"]
    for label in (
        "cost [USD]",
        "USD per million output tokens",
        "embodied CO2e [g]",
        "g CO2e per million output tokens",
    ):
        assert table[label][1:] == ["unknown", "unknown"]
        assert table[label][0] != "unknown"


def test_many_pools_get_a_row_each(result: Result) -> None:
    summary = summarize(result)
    pool = summary["by_pool"]["edge_l4"]
    summary["by_pool"] = {f"pool_number_{index}": pool for index in range(7)}
    lines = printed(summary).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum("pool_number_" in line for line in lines) == 7
    assert any("total" in line for line in lines)


def test_an_empty_run_prints(tmp_path: Path) -> None:
    empty = make_result(0, end_s=10.0)
    assert "–" in printed(summarize(empty))
    write_run(tmp_path / "run", empty, {"name": "empty"}, figures=False)


def test_nearly_all_is_not_all() -> None:
    assert [percent(share) for share in (None, 0.0, 0.5, 0.99999, 1.0)] == ["–", "0.00", "50.00", "99.99", "100"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (0.98, "0.980"), (73.0, "73.0"), (119.7, "120"), (999.6, "1,000"), (12345.6, "12,346"),
     (0.000123, "0.000123"), (1.5e-7, "1.50e-07"), (-2.5, "-2.50")],
)  # fmt: skip
def test_numbers_read_well(value: float | None, text: str) -> None:
    assert number(value) == text

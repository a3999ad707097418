"""What a study found: claims with their verdicts, tables and charts; printed, as JSON, and as files."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import IO, Any

from analysis.table import NOTHING, WIDTH, number

Cell = str | float | int | bool | None
HOLDS, PARTLY, FAILS, UNTESTED = "holds", "holds in part", "does not hold", "cannot be tested"


@dataclass(frozen=True, slots=True)
class Claim:
    """A hypothesis, what became of it (one of the four verdicts), and the numbers that say so."""

    what: str
    verdict: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells below named columns; None is unknown or does not apply. `shown` where a terminal prints it too."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure.

    Attributes:
        name, caption, x_label, y_label: what it shows.
        panels: by title; of `lines`, (xs, ys) by series; of `bars`, (categories, values) by series; of `tornado`, (low,
            high) by input, around the `base` of that title.
        kind: lines | bars | tornado.
        log: axes that are logarithmic, of "xy".
        level: a value of y that is marked, such as 1 for a ratio.
        base: see `panels`.
    """

    name: str
    caption: str
    kind: str
    x_label: str
    y_label: str
    panels: Mapping[str, Mapping[str, Any]]
    log: str = ""
    level: float | None = None
    base: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """A value that a study started from, with its ground; kind is ``given`` where the user set it."""

    key: str
    value: str
    unit: str
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """All of a study: its title, claims, tables and charts, and what has to be said about them."""

    title: str
    claims: Sequence[Claim]
    tables: Sequence[Table]
    charts: Sequence[Chart] = ()
    notes: Sequence[str] = ()


def document(name: str, outcome: Outcome, inputs: Sequence[Input]) -> dict[str, Any]:
    """A study as plain data: what is unknown is None, and each table a list of rows by column."""
    return {
        "study": name,
        "title": outcome.title,
        "claims": [{"what": c.what, "verdict": c.verdict, "evidence": c.evidence} for c in outcome.claims],
        "tables": {t.name: [dict(zip(t.columns, map(_plain, row))) for row in t.rows] for t in outcome.tables},
        "notes": list(outcome.notes),
        "inputs": {i.key: {"value": i.value, "unit": i.unit, "kind": i.kind, "source": i.source} for i in inputs},
    }


def print_outcome(outcome: Outcome, file: IO[str] | None = None) -> None:
    """Print title, tables to be shown, claims and notes; at most 100 columns wide."""
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    probe = Console(file=file)
    console = Console(file=file, width=min(probe.width, WIDTH) if probe.is_terminal else WIDTH)
    console.print(Text(outcome.title, style="bold"))
    for table in outcome.tables:
        if not table.shown:
            continue
        grid = Grid(title=Text(table.caption), title_justify="left", header_style="bold", title_style="")
        for place, column in enumerate(table.columns):
            texts = all(isinstance(row[place], str) for row in table.rows)
            grid.add_column(
                Text(column), justify="left" if texts else "right", overflow="fold", no_wrap=texts and place < 2
            )
        for row in table.rows:
            grid.add_row(*(Text(cell_text(cell)) for cell in row))
        console.print(grid)
    for claim in outcome.claims:
        console.print(Text(f"{claim.verdict.upper()}: ", style="bold") + Text(f"{claim.what}. {claim.evidence}"))
    for note in outcome.notes:
        console.print(Text(f"Note: {note}"))


def write_outcome(folder: Path, name: str, outcome: Outcome, inputs: Sequence[Input], command: str) -> None:
    """Write report.html, a CSV file a table and the figures into `folder`, which exists."""
    from analysis.plots import study as plots

    (folder / "tables").mkdir()
    for table in outcome.tables:
        with open(folder / "tables" / f"{table.name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            writer.writerows(["" if _plain(cell) is None else cell for cell in row] for row in table.rows)
    figures = plots.write(outcome.charts, folder / "figures")
    (folder / "report.html").write_text(_page(name, outcome, inputs, command, figures), encoding="utf-8")


def cell_text(cell: Cell) -> str:
    """A cell as people read it."""
    value = _plain(cell)
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(float(value)) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def _plain(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _page(name: str, outcome: Outcome, inputs: Sequence[Input], command: str, figures: Mapping[str, str]) -> str:
    title = escape(f"hybridfleet: {name}")
    claims = "".join(
        f"<dt>{escape(c.verdict)}: {escape(c.what)}</dt><dd>{escape(c.evidence)}</dd>\n" for c in outcome.claims
    )
    parts = [f"<h1>{title}</h1>\n<p class='sub'>{escape(outcome.title)}</p>\n<h2>Hypotheses</h2>\n<dl>{claims}</dl>\n"]
    if outcome.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in outcome.notes)
        parts.append(f'<div class="warn"><b>Read with</b><ul>{items}</ul></div>\n')
    for chart in outcome.charts:
        caption = escape(chart.caption)
        parts.append(
            f"<figure><img alt='{caption}' src='{figures[chart.name]}'><figcaption>{caption}</figcaption></figure>\n"
        )
    for table in outcome.tables:
        cells = [[cell_text(cell) for cell in row] for row in table.rows]
        parts.append(f"<h2>{escape(table.caption)}</h2>\n{_html_table(table.columns, cells)}\n")
    rows = [[i.key, i.value, i.unit, i.kind, i.source] for i in inputs]
    parts.append(f"<h2>What it rests on</h2>\n{_html_table(('input', 'value', 'unit', 'kind', 'source'), rows)}\n")
    parts.append(f"<h2>Run it again</h2>\n<pre>{escape(command)}</pre>\n")
    style = (resources.files("analysis") / "report.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n{''.join(parts)}</body>\n</html>\n"
    )


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    table = f'<table class="plain">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>'
    return f'<div class="scroll">{table}</div>'

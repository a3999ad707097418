"""A comparison on the terminal: of each alternative its means, and under them what sets it apart from the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import IO

from analysis.comparison import Cell, Column, Row
from analysis.table import UNKNOWN, number, percent

WIDTH, WIDE = 130, 150  #: characters, of up to seven metrics and of more


def print_comparison(
    rows: Mapping[str, Sequence[Row]],
    columns: Sequence[Column],
    refused: Mapping[str, str],
    incomplete: Sequence[str] = (),
    file: IO[str] | None = None,
) -> None:
    """Print the table, what ties mean, who was not compared and why, and what totals leave out."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    probe = Console(file=file)
    width = WIDTH if len(columns) <= 7 else WIDE
    console = Console(file=file, width=min(probe.width, width) if probe.is_terminal else width)
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("done\n[%]", justify="right")
    for column in columns:
        table.add_column(column.metric.label, justify="right")
    for name, many in rows.items():
        cells = (Text.assemble(*_cell(column, name)) for column in columns)
        table.add_row(Text(name), completed(many), *cells)
    console.print(table)
    seeds = len(next(iter(rows.values())))
    reference = "the best of its column" if any(c.reference != columns[0].reference for c in columns) else None
    against = reference or str(columns[0].reference or "nothing: no value is known of every seed")
    console.print(
        f"Means of {seeds} common seeds; below them the paired difference to {against}, with its 95 % interval. "
        "A tie's interval holds zero.",
        highlight=False,
        markup=False,
    )
    for name, why in refused.items():
        console.print(f"  not compared: {name}: {why}", style="yellow", markup=False, highlight=False)
    for line in incomplete:
        console.print(f"  not in the totals: {line}", style="yellow", markup=False, highlight=False)


def completed(rows: Sequence[Row]) -> str:
    """Requests that completed, of all [%]."""
    shares = [row["completed_share"] for row in rows]
    return percent(None if None in shares else sum(share or 0.0 for share in shares) / len(shares))


def _cell(column: Column, name: str) -> tuple[str, tuple[str, str]]:
    """The mean, and under it what is said of it."""
    cell = column.cells[name]
    if cell.mean is None:
        return f"{UNKNOWN}\n", ("", "dim")
    mean = number(column.metric.scale * cell.mean.mean)
    style = {"reference": "bold green", "tie": "green", "better": "bold green"}.get(cell.verdict, "dim")
    return f"{mean}\n", (_said(column, cell), style)


def _said(column: Column, cell: Cell) -> str:
    """What sets an alternative apart, in the unit of the column, or in % of the reference."""
    if cell.verdict in ("reference", "tie"):
        return "reference" if cell.verdict == "reference" else "tie"
    if cell.difference is None or cell.difference.half_width is None:
        return f"{cell.known} seeds known" if cell.known else ""
    scale, unit = column.metric.scale, ""
    reference = column.cells[str(column.reference)].mean
    if column.metric.relative and reference is not None and reference.mean:
        scale, unit = 100.0 / abs(reference.mean), " %"
    return f"{with_interval(scale * cell.difference.mean, scale * cell.difference.half_width)}{unit}"


def with_interval(mean: float, half_width: float) -> str:
    """A signed difference to the first digit of half its interval, and that: ``-0.0075 ±0.0004``."""
    exact = half_width <= 1e-9 * abs(mean)
    decimals = 2 if exact else max(0, -math.floor(math.log10(half_width)))
    return f"{mean:+,.{decimals}f} ±{half_width:,.{decimals}f}"

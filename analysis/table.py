"""The one table of a run: QoE, cost, energy and carbon of each pool beside the total, for terminal and report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import IO, Any

from analysis import economics, sites

Section = dict[str, Any]
Read = Callable[[Section], float | None]

#: Beyond this many pools the table has a row a pool instead of a column.
MOST_COLUMNS = 4
WIDTH = 100
UNKNOWN = "unknown"
NOTHING = "–"
ENERGY = (("Wh", 1e-3), ("kWh", 1.0), ("MWh", 1e3))
CARBON = (("g", 1e-3), ("kg", 1.0), ("t", 1e3))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        group: QoE, Cost, Energy or Carbon.
        label: what it is, with its unit.
        cells: one text a column of `headings`.
    """

    group: str
    label: str
    cells: list[str]


def headings(summary: Section) -> list[tuple[str, str]]:
    """Name and description of each column: the pools, then the total."""
    pools = [(name, f"{pool['site_kind']}, {_hardware(pool)}") for name, pool in summary["by_pool"].items()]
    return [*pools, ("total", "whole fleet")]


def rows(summary: Section) -> list[Row]:
    """The table's lines."""
    columns = [*summary["by_pool"].values(), summary["total"]]
    return [Row(group, label, cells) for group, label, cells in _lines(columns)]


def number(value: float | None, digits: int = 3) -> str:
    """A number as people write it: `digits` significant ones, whole thousands with separators."""
    if value is None:
        return NOTHING
    if round(abs(value)) >= 10**digits:
        return f"{value:,.0f}"
    if value == 0.0:
        return "0"
    return f"{value:#.{digits}g}".rstrip(".")


def percent(share: float | None) -> str:
    """A share in percent, so that nearly all is not shown as all."""
    if share is None:
        return NOTHING
    return "100" if share == 1.0 else f"{min(100.0 * share, 99.99):.2f}"


def task_name(task: str) -> str:
    """What answers are correct about, as it is read: the benchmark, or labels."""
    return task if task == "labels" else task.upper()


def print_table(summary: Section, file: IO[str] | None = None) -> None:
    """Print the table to the terminal, or to `file`; at most 100 columns wide."""
    from rich.console import Console

    probe = Console(file=file)
    console = Console(file=file, width=min(probe.width, WIDTH) if probe.is_terminal else WIDTH)
    many = len(summary["by_pool"]) > MOST_COLUMNS
    console.print(_row_a_pool(summary) if many else _column_a_pool(summary))
    for line in sites.lines(summary):
        console.print(f"  {line}", markup=False, highlight=False)
    for name, value in economics.lines(summary):
        console.print(f"  {name}: {value}", markup=False, highlight=False)
    for line in summary["total"]["incomplete"]:
        console.print(f"  not in the totals: {line}", style="yellow", markup=False, highlight=False)


def _lines(columns: list[Section]) -> Iterator[tuple[str, str, list[str]]]:
    requests = [section["requests"] for section in columns]
    yield "QoE", "requests completed / arrived", [f"{r['completed']:,} / {r['arrived']:,}" for r in requests]
    yield "QoE", "SLO attainment [%]", [percent(section["slo_attainment"]) for section in columns]
    if any(section["deadlines"] for section in columns):
        yield "QoE", "deadlines met [%]", [percent(section["deadlines_met"]) for section in columns]
    yield "QoE", "goodput [requests/s]", _scaled(columns, itemgetter("goodput_rps"))
    yield "QoE", "token-timeline QoE [0 to 1]", _scaled(columns, itemgetter("token_qoe"))
    for metric, label, unit, scale in (
        ("ttft_s", "TTFT", "s", 1.0),
        *([("ttfv_s", "first visible token", "s", 1.0)] if columns[-1]["reasoning_tokens"] else []),
        *([("first_audio_s", "first sound", "s", 1.0)] if columns[-1]["first_audio_s"]["p50"] is not None else []),
        ("tpot_s", "TPOT", "ms", 1e3),
        ("itl_s", "ITL", "ms", 1e3),
        ("e2e_s", "E2E", "s", 1.0),
    ):
        yield "QoE", f"{label} p50 / p99 [{unit}]", [_pair(section[metric], scale) for section in columns]
    if any(section["answer_quality"] is not None for section in columns):
        label = f"answers correct, by {task_name(columns[-1]['answer_task'])} [%]"
        yield "QoE", label, [percent(section["answer_quality"]) for section in columns]
    elif any(section["quality"] for section in columns):
        yield "QoE", "quality of the model [MMLU]", _scaled(columns, lambda section: section["quality"].get("mmlu"))
    if all("legs_per_request" in section for section in columns):
        yield "QoE", "escalated [%]", [percent(section["escalated"]) for section in columns]
        yield "QoE", "output tokens wasted", [f"{section['tokens_wasted']:,.0f}" for section in columns]
    yield "Cost", "cost [USD]", _known(columns, itemgetter("cost_usd"))
    yield "Cost", "USD per million output tokens", _per(columns, "usd_per_mtok", itemgetter("cost_usd"))
    for label, one, other, scale in (
        ("USD per million, prompts / output", "usd_per_mtok_in", "usd_per_mtok_out", 1.0),
        ("USD per 1,000 requests / in SLO", "usd_per_request", "usd_per_slo_request", 1e3),
    ):
        yield "Cost", label, [_both(section, one, other, scale) for section in columns]
    yield _with_unit("Energy", "facility energy", columns, itemgetter("energy_kwh"), ENERGY)
    yield "Energy", "J per output token", _per(columns, "j_per_token", itemgetter("energy_kwh"))
    if any(section["bytes_up"] or section["bytes_down"] for section in columns):
        label = "traffic of links up / down [MB]"
        yield "Energy", label, [" / ".join(number(s[key] / 1e6) for key in ("bytes_up", "bytes_down")) for s in columns]
    for part in ("operational", "embodied", "total"):
        yield _with_unit(
            "Carbon", f"{part} CO2e", [section["carbon_kg"] for section in columns], itemgetter(part), CARBON
        )
    yield "Carbon", "g CO2e per million output tokens", _per(columns, "g_per_mtok", lambda s: s["carbon_kg"]["total"])
    grounds = [section["grounding"] for section in columns]
    yield (
        "Ground",
        "timing / power of the xPU",
        [" / ".join(g[k] for k in ("timing", "power") if k in g) for g in grounds],
    )


def _scaled(columns: list[Section], read: Read) -> list[str]:
    return [number(read(section)) for section in columns]


def _known(columns: list[Section], read: Read, scale: float = 1.0) -> list[str]:
    """Amounts: none at all is unknown, not zero."""
    values = [read(section) for section in columns]
    return [UNKNOWN if value is None else number(value / scale) for value in values]


def _per(columns: list[Section], key: str, amount: Read) -> list[str]:
    """Amounts per token: a dash where there were no tokens, unknown where the amount is."""
    return [UNKNOWN if amount(section) is None else number(section[key]) for section in columns]


def _both(section: Section, one: str, other: str, scale: float) -> str:
    """Two unit costs, unknown together."""
    if section["cost_usd"] is None:
        return UNKNOWN
    return " / ".join(number(None if section[key] is None else scale * section[key]) for key in (one, other))


def _with_unit(
    group: str, label: str, columns: list[Section], read: Read, units: tuple[tuple[str, float], ...]
) -> tuple[str, str, list[str]]:
    """A line in the largest unit in which its largest value is at least one."""
    most = max((value for value in map(read, columns) if value is not None), default=0.0)
    fitting = [unit for unit in units if most >= unit[1]]
    name, scale = fitting[-1] if fitting else units[0]
    return group, f"{label} [{name}]", _known(columns, read, scale)


def _pair(metric: Section, scale: float) -> str:
    if metric["p50"] is None:
        return NOTHING
    return f"{number(scale * metric['p50'])} / {number(scale * metric['p99'])}"


def _hardware(pool: Section) -> str:
    """Replicas and the xPUs of each, such as ``2 × 4 h100_sxm``; or whose API it is."""
    if pool.get("provider"):
        return f"API of {pool['provider']}"
    each = pool["xpus"] // pool["replicas"]
    return f"{pool['replicas']} × " + (pool["xpu"] if each == 1 else f"{each} {pool['xpu']}")


def _column_a_pool(summary: Section) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    table.add_column("", overflow="fold")
    for name, description in headings(summary):
        heading = Text.assemble(name, "\n", (description, "not bold dim"))
        table.add_column(heading, justify="right", overflow="fold")
    lines = rows(summary)
    for line, after in zip(lines, [*lines[1:], None]):
        table.add_row(Text(line.label), *map(Text, line.cells), end_section=after is None or after.group != line.group)
    return table


def _row_a_pool(summary: Section) -> Any:
    """The few most telling columns, where pools are too many to stand side by side."""
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    wanted = {
        "requests completed / arrived": "requests\nok / all",
        "SLO attainment [%]": "SLO\n[%]",
        "token-timeline QoE [0 to 1]": "QoE",
        "TTFT p50 / p99 [s]": "TTFT [s]\np50 / p99",
        "cost [USD]": "cost\n[USD]",
    }
    chosen = [line for line in rows(summary) if line.label in wanted or line.label.startswith(("facility", "total"))]
    table.add_column("pool", overflow="fold")
    for line in chosen:
        title = wanted.get(line.label, line.label.replace("facility ", "").replace("total ", "").replace(" [", "\n["))
        table.add_column(Text(title), justify="right", overflow="fold")
    names = headings(summary)
    for place, (name, _) in enumerate(names):
        table.add_row(Text(name), *(Text(line.cells[place]) for line in chosen), end_section=place == len(names) - 2)
    return table

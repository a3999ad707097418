"""``hybridfleet list NOUN [ID]``: what the catalogue holds, and where every number of an entry comes from."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from sim.errors import InputError
from sim.hardware import catalogue
from sim.hardware.grounding import grade
from sim.hardware.keys import MODEL_KEYS, XPU_KEYS
from sim.units import GB

if TYPE_CHECKING:
    from rich.table import Table

_VALUE_WIDTH = 40  #: columns of one value: curves are long
_WIDE = 120  #: columns from which on tables show what is there to read, not to choose by
_PIPE_WIDTH = 200  #: columns where the output is no terminal, so that nothing is cut


def main(argv: Sequence[str]) -> int:
    """Print the entries of a group, or one entry with unit, source and kind of each constant.

    Returns:
        The exit status.

    Raises:
        InputError: there is no such group or entry.
    """
    parser = Parser("hybridfleet list", description=__doc__)
    parser.add_argument("noun", nargs="?", help="xpus, models, routers, workloads, ...")
    parser.add_argument("id", nargs="?", help="one entry, shown whole")
    parser.add_argument("--sources", metavar="ID", help="the same as naming an entry")
    parser.add_argument("--config-dir", type=Path, action="append", default=[], help="further entries of your own")
    arguments = parser.parse_args(list(argv))
    folders: list[Path] = arguments.config_dir
    group = _group(arguments.noun, folders)
    name = arguments.id or arguments.sources
    if name is not None:
        _show_entry(group, name, folders)
    elif group == "xpu":
        _show(_xpu_table(folders))
    elif group == "model":
        _show(_model_table(folders))
    else:
        _show(_plain_table(group, folders))
    return 0


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are errors like all others: one line, no usage text."""

    def format_help(self) -> str:
        """The usage; descriptions are the modules' own, in which double backticks mark code."""
        return super().format_help().replace("``", "")

    def error(self, message: str) -> NoReturn:
        raise InputError("arguments", message, f"see `{self.prog} --help`")


def _group(noun: str | None, folders: Sequence[Path]) -> str:
    """The catalogue group that a noun, singular or plural, names."""
    roots = [*folders, catalogue.CONF]
    groups = {path.name for root in roots if root.is_dir() for path in root.iterdir() if any(path.glob("*.yaml"))}
    for group in groups:
        if noun in (group, _plural(group)):
            return group
    raise InputError("list", noun, " | ".join(_plural(group) for group in sorted(groups)))


def _plural(group: str) -> str:
    return f"{group[:-1]}ies" if group.endswith("y") else f"{group}s"


def _xpu_table(folders: Sequence[Path]) -> Table:
    more = ("weights in", "name") if _width() >= _WIDE else ()
    table = _table("id", "memory GB", "GB/s", "TFLOP/s", "TDP W", "USD/h", "timing", *more)
    table.caption = "TFLOP/s at 16 bit; `hybridfleet list xpus ID` shows all of one, with sources"
    for name in catalogue.list_entries("xpu", folders):
        xpu, entry = catalogue.xpu(name, folders), catalogue.load_entry("xpu", name, folders)
        peak = xpu.peak_flops.get("bf16", xpu.peak_flops.get("fp16", 0.0))
        rent = entry.values.get("rent_usd_per_hour")
        table.add_row(
            name,
            f"{xpu.memory_bytes / GB:.1f}",
            f"{xpu.bandwidth_bytes_per_s / GB:.0f}",
            f"{peak / 1e12:.4g}",
            f"{xpu.tdp_w:.0f}",
            "-" if rent is None else f"{rent:.2f}",
            grade(entry.provenance),
            *((" ".join(xpu.weight_formats), xpu.name) if more else ()),
        )
    return table


def _model_table(folders: Sequence[Path]) -> Table:
    more = ("layers", "MMLU /1", "Hugging Face name") if _width() >= _WIDE else ()
    table = _table("id", "params 1e9", "active 1e9", "attention", "KV kB /token", "context", *more)
    table.caption = "`hybridfleet list models ID` shows all of one, with sources"
    for name in catalogue.list_entries("model", folders):
        model = catalogue.model(name, folders)
        window = f", {model.window_layers} x window {model.window}" if model.window_layers else ""
        linear = f", {model.linear_layers} without KV" if model.linear_layers else ""
        table.add_row(
            name,
            f"{model.params / 1e9:.4g}",
            f"{model.params_active / 1e9:.4g}",
            f"{model.attention}{window}{linear}",
            f"{model.kv_bytes_per_token() / 1e3:.1f}",
            str(model.max_context),
            *((str(model.layers), f"{model.quality.get('mmlu', float('nan')):.3f}", model.hf_id) if more else ()),
        )
    return table


def _plain_table(group: str, folders: Sequence[Path]) -> Table:
    """Ids with the first comment line of their files, which says what they are."""
    table = _table("id", "what it is")
    for name in catalogue.list_entries(group, folders):
        lines = _path(group, name, folders).read_text(encoding="utf-8").splitlines()
        table.add_row(name, next((line.lstrip("# ") for line in lines if line.startswith("#")), ""))
    return table


def _show_entry(group: str, name: str, folders: Sequence[Path]) -> None:
    if group not in ("xpu", "model"):
        print(_path(group, name, folders).read_text(encoding="utf-8"), end="")
        return
    entry = catalogue.load_entry(group, name, folders)
    keys = XPU_KEYS if group == "xpu" else MODEL_KEYS
    table = _table("key", "value", "unit", "kind", "source")
    table.columns[1].max_width = _VALUE_WIDTH
    table.title = f"{group} {entry.id}"
    for key, value in _flatten(entry.values):
        if key not in entry.provenance:
            table.add_row(key, _text(value), "", "", "")
            continue
        unit, source, kind = entry.provenance[key]
        table.add_row(key, _text(_in_unit(value, keys[key][unit])), unit, kind, source)
    _show(table)


def _in_unit(value: Any, factor: float) -> Any:
    """A value as the file has it, in the unit it states there; of a curve, its points as texts."""
    if isinstance(value, float):
        return value / factor
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return [f"{x:g}: {y / factor:g}" for x, y in value]
    return value


def _path(group: str, name: str, folders: Sequence[Path]) -> Path:
    if name not in catalogue.list_entries(group, folders):
        raise InputError(group, name, " | ".join(catalogue.list_entries(group, folders)))
    paths = (Path(folder) / group / f"{name}.yaml" for folder in [*folders, catalogue.CONF])
    return next(path for path in paths if path.is_file())


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    return str(value)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numeric = any(char in column for char in "/1") or column in ("memory GB", "TDP W", "layers", "context")
        justify: Literal["left", "right"] = "right" if numeric else "left"
        word = max(map(len, column.split()))
        # An id is there to be copied: never broken. Nor is a word of a heading.
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column == "id", min_width=word)
    return table


def _show(table: Table) -> None:
    from rich.console import Console

    Console(width=_width()).print(table)


def _width() -> int:
    """Columns that a table may take."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_WIDTH

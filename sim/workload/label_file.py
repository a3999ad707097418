"""Reads labels of correctness out of CSV files: one question a row, one column a model, lengths and times if any."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim.errors import InputError
from sim.workload.checks import MAX_TOKENS
from sim.workload.lengths import FloatArray
from sim.workload.readers import first_line, header_of, open_text

SUFFIX = "_correct"  #: of columns that are labels, where the user names none
#: fields besides labels, and the columns they are in where the user names none and they are there
FIELDS = {
    "arrival": "arrival_s",
    "prompt": "prompt_tokens",
    "output": "output_tokens",
    "prompt_chars": "prompt_chars",
    "output_chars": "output_chars",
}
_ACCEPTED = {
    "label": "a number from 0 (wrong) to 1 (correct), or nothing where it is unknown",
    "arrival": "a time >= 0 s",
    "length": f"a whole number from 1 to {MAX_TOKENS}",
}


@dataclass(frozen=True, slots=True)
class LabelFile:
    """What a file holds, one value a question.

    Attributes:
        labels: by name of the label: 1 correct, 0 wrong, NaN unknown.
        fields: those of `FIELDS` that the file has.
    """

    labels: Mapping[str, FloatArray]
    fields: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))


def read_labels(path: Path, labels: Mapping[str, str] | None, columns: Mapping[str, str]) -> LabelFile:
    """Read a whole file.

    Args:
        path: CSV with a header; one that ends in ``.gz`` is unpacked on the fly.
        labels: column by name of the label; None takes every column that ends in ``_correct``.
        columns: column by field; of fields left out, the usual names count where they are there.

    Raises:
        InputError: a column is missing or a cell cannot be used; the message names file and line.
    """
    present = header_of(first_line(path), path)
    chosen = _labels(present, labels, path)
    fields = {field: name for field, name in FIELDS.items() if name in present and field not in columns} | dict(columns)
    for key, named in (("labels", chosen), ("columns", fields)):
        for field, name in named.items():
            if name not in present:
                raise InputError(f"workload.{key}.{field}", name, f"a column of {path}: {', '.join(present)}"[:300])
    rows, lines = _rows(path, len(present))
    cells = {name: [row[at] for row in rows] for at, name in enumerate(present)}
    whose = f"{path} line "

    def column(name: str, kind: str, convert: Callable[[str], float | None]) -> FloatArray:
        values = [convert(cell) for cell in cells[name]]
        if None in values:
            at = values.index(None)
            raise InputError(name, cells[name][at], _ACCEPTED[kind], f"{whose}{lines[at]}")
        return np.array(values, dtype=np.float64)

    found = {field: column(name, "length", _length) for field, name in fields.items() if field != "arrival"}
    if "arrival" in fields:
        found["arrival"] = _in_order(column(fields["arrival"], "arrival", _time), fields["arrival"], lines, whose)
    return LabelFile({name: column(at, "label", _label) for name, at in chosen.items()}, found)


def _labels(present: list[str], labels: Mapping[str, str] | None, path: Path) -> Mapping[str, str]:
    if labels is not None:
        return labels
    found = {name.removesuffix(SUFFIX): name for name in present if name.endswith(SUFFIX) and name != SUFFIX}
    if not found:
        accepted = f"columns that end in {SUFFIX}, or workload.labels to name others"
        raise InputError("columns", ", ".join(present)[:200], accepted, f"{path} line 1")
    return found


def _rows(path: Path, width: int) -> tuple[list[list[str]], list[int]]:
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with open_text(path) as file:
            reader = csv.reader(file)
            next(reader)
            for row in reader:
                if len(row) == width:
                    rows.append(row)
                    lines.append(reader.line_num)
                elif row:  # a blank line is no row
                    raise InputError("row", ",".join(row)[:60], f"{width} fields", f"{path} line {reader.line_num}")
    except (csv.Error, UnicodeDecodeError, OSError, EOFError) as error:
        raise InputError("workload.path", str(path), f"a readable file of CSV in UTF-8 ({error})") from None
    if not rows:
        raise InputError("workload.path", str(path), "a file with at least one question (this has none)")
    return rows, lines


def _in_order(arrival_s: FloatArray, name: str, lines: list[int], whose: str) -> FloatArray:
    falls = np.diff(arrival_s, prepend=arrival_s[0]) < 0.0
    if falls.any():
        at = int(np.argmax(falls))
        raise InputError(name, float(arrival_s[at]), "at least that of the row before", f"{whose}{lines[at]}")
    return arrival_s


def _label(cell: str) -> float | None:
    if not cell.strip():
        return math.nan
    value = _float(cell)
    return value if 0.0 <= value <= 1.0 else None


def _time(cell: str) -> float | None:
    value = _float(cell)
    return value if 0.0 <= value < math.inf else None


def _length(cell: str) -> float | None:
    value = _float(cell)
    return value if 1.0 <= value <= MAX_TOKENS and value == int(value) else None


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan

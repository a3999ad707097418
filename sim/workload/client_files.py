"""Reads the files of client mixes: for each client how often it asks, and how long its prompts and answers are.

A folder has two files a client. ``NAME-trace.csv``, without a header, has a row a window: its start [s], rate [1/s],
CV of the gaps, their pattern (Gamma, Weibull, or nothing), and that pattern's shape and scale, the latter of no use
here, as it follows from the rate. ``NAME-dataset.json`` has, by the start of longer windows [s], probabilities of
values by field, each a Python dictionary as text.

Source: format of ServeGen (github.com/alibaba/ServeGen), arXiv 2505.09999.
"""

from __future__ import annotations

import ast
import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sim.errors import InputError
from sim.workload.checks import MAX_RATE, MAX_TOKENS
from sim.workload.lengths import FloatArray, IntArray

TRACE, DATASET = "-trace.csv", "-dataset.json"  #: ends of the names of a client's two files
PATTERNS = ("Gamma", "Weibull")
_ROW = "6 fields: start [s], rate [1/s], CV, pattern (Gamma, Weibull or nothing), shape, scale"
_TEXT = "a Python dictionary of values to probabilities, as text"


@dataclass(frozen=True, slots=True)
class Window:
    """One row of a client's trace.

    Attributes:
        start_s, end_s: when it is [s].
        rate: mean arrival rate [1/s]; 0 for none.
        pattern, shape: law of the gaps; of no meaning without arrivals.
    """

    start_s: float
    end_s: float
    rate: float
    pattern: str
    shape: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """Values and their cumulative probabilities.

    Attributes:
        values: ascending; cumulative: ends at 1.
    """

    values: FloatArray
    cumulative: FloatArray

    def quantile(self, u: FloatArray) -> FloatArray:
        """Values at probabilities `u` in [0, 1]; those of probability 0 never occur."""
        found: FloatArray = self.values[np.minimum(np.searchsorted(self.cumulative, u, "right"), len(self.values) - 1)]
        return found

    def tokens(self, u: FloatArray) -> IntArray:
        """The same as whole numbers."""
        return self.quantile(u).astype(np.int64)


@dataclass(slots=True)
class Client:
    """One client's files.

    Attributes:
        name: of its files, without their ends.
        windows: of its trace, in order.
        data: its data set; None where the file is not there.
    """

    name: str
    windows: tuple[Window, ...]
    data: ClientData | None


@dataclass(slots=True)
class ClientData:
    """Distributions by field, read from their text when they are first asked for: a file may hold megabytes of them.

    Attributes:
        path: of the file; starts_s: of its windows, ascending [s].
    """

    path: Path
    starts_s: list[float]
    _texts: list[Mapping[str, Any]]
    _read: dict[tuple[int, str], Distribution] = field(default_factory=dict)

    def at(self, t_s: float) -> int:
        """Number of the window in which a time is; times before the first are in the first."""
        return max(int(np.searchsorted(self.starts_s, t_s, "right")) - 1, 0)

    def has(self, window: int, name: str) -> bool:
        """Whether a window has a field."""
        return name in self._texts[window]

    def of(self, window: int, name: str) -> Distribution:
        """The distribution of a field.

        Raises:
            InputError: it is missing, empty, or no distribution.
        """
        found = self._read.get((window, name))
        if found is None:
            where = f"{self.path} window {self.starts_s[window]:g}"
            found = self._read[window, name] = _distribution(name, self._texts[window].get(name), where)
        return found


def read_clients(folder: Path) -> list[Client]:
    """All clients of a folder, in the order of their names, numbers by size.

    Raises:
        InputError: there is none, or a file cannot be used; the message names file and line.
    """
    if not folder.is_dir():
        raise InputError("workload.path", str(folder), f"a folder with files NAME{TRACE} and NAME{DATASET}")
    names = [path.name.removesuffix(TRACE) for path in folder.glob(f"*{TRACE}")]
    if not names:
        raise InputError("workload.path", str(folder), f"a folder with files NAME{TRACE} and NAME{DATASET} (none here)")
    found = []
    for name in sorted(names, key=_by_number):
        data = folder / f"{name}{DATASET}"
        found.append(Client(name, _windows(folder / f"{name}{TRACE}"), _data(data) if data.is_file() else None))
    return found


def _by_number(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or -1)


def _windows(path: Path) -> tuple[Window, ...]:
    rows: list[tuple[float, float, str, float]] = []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                if row:
                    rows.append(_row(row, f"{path} line {len(rows) + 1}"))
                    if len(rows) > 1 and not rows[-1][0] > rows[-2][0]:
                        raise InputError("start", rows[-1][0], "a later start than before", f"{path} line {len(rows)}")
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError("workload.path", str(path), f"a readable file of CSV in UTF-8 ({error})") from None
    if len(rows) < 2:
        raise InputError("workload.path", str(path), "at least two windows, the first two of which tell their length")
    ends = [row[0] for row in rows[1:]] + [rows[-1][0] + rows[1][0] - rows[0][0]]
    return tuple(Window(start, end, rate, law, shape) for (start, rate, law, shape), end in zip(rows, ends))


def _row(row: list[str], where: str) -> tuple[float, float, str, float]:
    shown = ",".join(row)[:60]
    if len(row) != 6:
        raise InputError("row", shown, _ROW, where)
    try:
        start, rate, _, shape = (float(row[i]) for i in (0, 1, 2, 4))
    except ValueError:
        raise InputError("row", shown, _ROW, where) from None
    if not (0.0 <= start < math.inf and 0.0 <= rate <= MAX_RATE):
        raise InputError("row", shown, f"a start >= 0 s and a rate from 0 to {MAX_RATE:g}/s", where)
    pattern = row[3].strip()
    if rate > 0.0 and (pattern not in PATTERNS or not 0.0 < shape < math.inf):
        raise InputError("row", shown, f"{' | '.join(PATTERNS)} with a shape > 0, where there are arrivals", where)
    return start, rate, pattern, shape


def _data(path: Path) -> ClientData:
    try:
        content = json.loads(path.read_bytes())
        windows = sorted((float(start), texts) for start, texts in content.items())
    except (ValueError, AttributeError, RecursionError, OSError):
        raise InputError("workload.path", str(path), "a JSON object by the start of windows [s]") from None
    if not windows or not all(isinstance(texts, dict) for _, texts in windows):
        raise InputError("workload.path", str(path), "a JSON object of fields for each of its windows")
    return ClientData(path, [start for start, _ in windows], [texts for _, texts in windows])


def _distribution(name: str, text: object, where: str) -> Distribution:
    """Read a distribution; as a literal, so that a file cannot run anything."""
    try:
        pairs = ast.literal_eval(text) if isinstance(text, str) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pairs = None
    if not isinstance(pairs, dict) or not pairs:
        shown = text[:60] if isinstance(text, str) else text
        raise InputError(name, shown, _TEXT + (", not an empty one" if pairs == {} else ""), where)
    try:
        values, weights = (np.array([float(x) for x in part]) for part in (pairs.keys(), pairs.values()))
    except (TypeError, ValueError, OverflowError):
        raise InputError(name, str(pairs)[:60], _TEXT, where) from None
    good = np.isfinite(weights) & (weights >= 0.0) & (values >= 0.0) & (values <= MAX_TOKENS)
    if not good.all() or not weights.sum() > 0.0:
        raise InputError(name, str(pairs)[:60], f"values from 0 to {MAX_TOKENS} with probabilities >= 0", where)
    there = np.flatnonzero(weights > 0.0)
    order = there[np.argsort(values[there], kind="stable")]
    cumulative = np.cumsum(weights[order])
    return Distribution(values[order], cumulative / cumulative[-1])

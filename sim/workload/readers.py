"""Streams rows out of trace files of several formats, a block at a time, with exact line numbers in every error."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import numpy as np

from sim.errors import InputError
from sim.workload.checks import MAX_TOKENS
from sim.workload.layouts import LAYOUTS, SECONDS, guess, settle, settle_traits
from sim.workload.lengths import FloatArray, IntArray
from sim.workload.trait_columns import TraitReader
from sim.workload.traits import TraitColumns

BLOCK = 8192  #: rows converted at a time
MICROSECOND = dt.timedelta(microseconds=1)
TOKENS_ACCEPTED = f"a whole number of tokens from 1 to {MAX_TOKENS}"


@dataclass(slots=True)
class Rows:
    """Rows of a trace as they are in the file.

    Attributes:
        lines: line number of each, from 1; empty once the rows are checked and can no longer be in error.
        arrival_s: float64 [n], seconds since the first row of the file.
        prompt, output: int64 [n]; an output of 0 is a failed request.
        hashes: names of each prompt's prefix units, or None where the trace has none.
        traits: what sets requests apart, as far as the trace tells.
    """

    lines: list[int]
    arrival_s: FloatArray
    prompt: IntArray
    output: IntArray
    hashes: list[tuple[int, ...]] | None = None
    traits: TraitColumns | None = None

    def take(self, chosen: IntArray) -> Rows:
        """The rows with these indices, their lines forgotten."""
        hashes = None if self.hashes is None else [self.hashes[i] for i in chosen.tolist()]
        traits = None if self.traits is None else self.traits.take(chosen)
        return Rows([], self.arrival_s[chosen], self.prompt[chosen], self.output[chosen], hashes, traits)

    @staticmethod
    def join(parts: list[Rows]) -> Rows:
        """Rows below each other, their lines forgotten."""
        hashes = None if parts[0].hashes is None else [each for part in parts for each in part.hashes or ()]
        traits = [part.traits for part in parts if part.traits is not None]
        return Rows(
            [],
            np.concatenate([part.arrival_s for part in parts]),
            np.concatenate([part.prompt for part in parts]),
            np.concatenate([part.output for part in parts]),
            hashes,
            TraitColumns.join(traits) if traits else None,
        )


class TraceFile:
    """A trace on disk. Its format is settled and its first line checked when it is made, the rest while it is read.

    Args:
        path: the file; one that ends in ``.gz`` is unpacked on the fly.
        format: a key of `LAYOUTS`, or ``auto`` to tell by the columns or keys of its first line.
        columns: names by field (arrival, prompt, output, and those of traits) that replace the format's own.
        time_unit: one of `TIME_UNITS`, or None for the format's own.
    """

    def __init__(self, path: Path, format: str, columns: Mapping[str, str] | None, time_unit: str | None) -> None:
        self.path = path
        first = first_line(path)
        is_json = first.lstrip().startswith("{")
        present = _keys(first, is_json, path)
        self.format = guess(present, is_json, path, columns or {}) if format == "auto" else format
        layout = LAYOUTS[self.format]
        self._json = is_json
        self._header = present
        self.names = settle(layout, columns or {}, present, path)
        self.time_unit = time_unit or layout.time_unit
        self.drop_failed = layout.drop_failed
        self.hashes = layout.hashes if layout.hashes in present else None
        self.traits = settle_traits(layout, columns or {}, present, path)

    def blocks(self) -> Iterator[Rows]:
        """Yield the rows in the order of the file; memory stays flat.

        Raises:
            InputError: a row is malformed, the text is not UTF-8 or the compressed file is damaged.
        """
        origin: Any = None
        reader = TraitReader(self.path, self.traits) if self.traits else None
        try:
            with open_text(self.path) as file:
                rows = self._json_rows(file) if self._json else self._csv_rows(file)
                while block := list(islice(rows, BLOCK)):
                    lines, *columns = map(list, zip(*block))
                    origin = columns[0][0] if origin is None else origin
                    rows_read = self._converted(lines, columns, origin)
                    if reader is not None:
                        rows_read.traits = reader.read(lines, columns[-len(self.traits) :])
                    yield rows_read
        except UnicodeDecodeError:
            raise _not_utf8(self.path) from None
        except (OSError, EOFError, zlib.error) as error:
            raise InputError("workload.path", str(self.path), f"a readable, undamaged file ({error})") from None

    def where(self, line: int) -> str:
        """Name a line for an error message."""
        return f"{self.path} line {line}"

    def _csv_rows(self, file: IO[str]) -> Iterator[tuple[Any, ...]]:
        reader = csv.reader(file)
        next(reader)
        width = len(self._header)
        pick = itemgetter(*(self._header.index(name) for name in (*self.names, *self.traits.values())))
        try:
            for row in reader:
                if len(row) == width:
                    yield (reader.line_num, *pick(row))
                elif row:  # a blank line is no row
                    raise InputError("row", ",".join(row), f"{width} fields", self.where(reader.line_num))
        except csv.Error as error:
            raise InputError("row", str(error), "a row of CSV", self.where(reader.line_num)) from None

    def _json_rows(self, file: IO[str]) -> Iterator[tuple[Any, ...]]:
        pick = itemgetter(*self.names, *([self.hashes] if self.hashes else []))
        traits = tuple(self.traits.values())
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                row = json.loads(line)
                yield (number, *pick(row), *map(row.get, traits)) if traits else (number, *pick(row))
            except (ValueError, RecursionError):
                raise InputError("row", _short(line), "one JSON object a line", self.where(number)) from None
            except (KeyError, TypeError, IndexError, AttributeError):
                accepted = "a JSON object with " + ", ".join(self.names)
                raise InputError("row", _short(line), accepted, self.where(number)) from None

    def _converted(self, lines: list[int], columns: list[list[Any]], origin: Any) -> Rows:
        arrival, prompt, output = columns[:3]
        if self.time_unit == "datetime":
            arrival_s = self._datetimes(lines, arrival, origin)
        else:
            start = self._numbers(lines[:1], [origin])[0]
            arrival_s = (self._numbers(lines, arrival) - start) * SECONDS[self.time_unit]
        prompt_tokens = self._tokens(lines, prompt, self.names[1], 1)
        hashes = [self._hashes(line, value) for line, value in zip(lines, columns[3])] if self.hashes else None
        return Rows(lines, arrival_s, prompt_tokens, self._tokens(lines, output, self.names[2], 0), hashes)

    def _hashes(self, line: int, value: Any) -> tuple[int, ...]:
        if isinstance(value, list) and set(map(type, value)) <= {int}:
            return tuple(value)
        raise InputError(str(self.hashes), value, "a list of whole numbers", self.where(line))

    def _numbers(self, lines: list[int], values: list[Any]) -> FloatArray:
        """Convert a column of numeric times, in their own unit."""
        try:
            result = np.array(list(map(float, values)))
            if np.isfinite(result).all() and bool not in set(map(type, values)):
                return result
        except (TypeError, ValueError, OverflowError):
            pass
        at = next(i for i, value in enumerate(values) if not math.isfinite(_float(value)))
        raise InputError(
            self.names[0], values[at], f"a time in {self.time_unit} (see workload.time_unit)", self.where(lines[at])
        )

    def _datetimes(self, lines: list[int], values: list[Any], origin: Any) -> FloatArray:
        """Convert a column of timestamps to seconds since `origin`, exact to a microsecond."""
        try:
            start = dt.datetime.fromisoformat(origin)
            return np.array([(dt.datetime.fromisoformat(value) - start) / MICROSECOND for value in values]) * 1e-6
        except (TypeError, ValueError):  # a time with a zone less one without is a TypeError
            pass
        at = next(i for i, value in enumerate(values) if not _like(value, origin))
        accepted = "a timestamp such as 2023-11-16 18:15:46.68, all of a file with or all without a time zone"
        raise InputError(self.names[0], values[at], accepted, self.where(lines[at]))

    def _tokens(self, lines: list[int], values: list[Any], name: str, low: int) -> IntArray:
        """Convert a column of token counts from `low` up."""
        try:
            if bool not in (kinds := set(map(type, values))) and float not in kinds:
                result = np.array(list(map(int, values)), dtype=np.int64)
                if result.min() >= low and result.max() <= MAX_TOKENS:
                    return result
        except (TypeError, ValueError, OverflowError):
            pass
        return np.array([self._whole(line, value, name, low) for line, value in zip(lines, values)], dtype=np.int64)

    def _whole(self, line: int, value: Any, name: str, low: int) -> int:
        """Convert one count slowly: a whole float such as 12.0 is fine, all else is an error."""
        result = _float(value)
        if not low <= result <= MAX_TOKENS or result != int(result):
            raise InputError(name, value, TOKENS_ACCEPTED, self.where(line))
        return int(result)


def _float(value: Any) -> float:
    """A number from a text or number, NaN if it is none."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _like(value: Any, origin: Any) -> bool:
    """Whether two timestamps can be subtracted."""
    try:
        return isinstance(dt.datetime.fromisoformat(value) - dt.datetime.fromisoformat(origin), dt.timedelta)
    except (TypeError, ValueError):
        return False


def open_text(path: Path) -> IO[str]:
    """A text file in UTF-8; one that ends in ``.gz`` is unpacked."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return open(path, encoding="utf-8-sig", newline="")


def first_line(path: Path) -> str:
    """The first line of a file, which is there and not empty."""
    try:
        with open_text(path) as file:
            line = file.readline(1 << 24)
    except FileNotFoundError:
        raise InputError("workload.path", str(path), "an existing file") from None
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("workload.path", str(path), f"a readable, undamaged file ({error})") from None
    if not line.strip():
        raise InputError("workload.path", str(path), "a trace with at least one request (this file is empty)")
    return line


def _keys(line: str, is_json: bool, path: Path) -> list[str]:
    """Names of the columns or keys in the first line."""
    if not is_json:
        return header_of(line, path)
    try:
        return list(json.loads(line))
    except ValueError:
        raise InputError("row", _short(line), "one JSON object a line", f"{path} line 1") from None


def header_of(line: str, path: Path) -> list[str]:
    """Names of the columns in a header of CSV."""
    try:
        return [name.strip() for name in next(csv.reader([line]))]
    except csv.Error as error:
        raise InputError("row", str(error), "a header of CSV", f"{path} line 1") from None


def _not_utf8(path: Path) -> InputError:
    """Find the line that does not decode; the text layer decodes ahead and cannot tell."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                bad = line[error.start : error.start + 8]
                return InputError("row", bad, "text in UTF-8", f"{path} line {number}")
    return InputError("workload.path", str(path), "text in UTF-8")


def _short(line: str) -> str:
    line = line.strip()
    return line if len(line) <= 60 else line[:57] + "..."

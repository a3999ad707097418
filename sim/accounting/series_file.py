"""A CSV file of values over time: `datetime_utc`, then a column a zone or quantity, one row an hour or finer.

A file is read once, whatever number of sites use its columns. Every fault is named by its line.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from sim.errors import InputError, number
from sim.units import SECONDS_PER_HOUR

TIME_COLUMN = "datetime_utc"
FINEST_S = 60.0  #: shortest interval between two rows [s]


@dataclass(frozen=True, slots=True)
class SeriesFile:
    """The rows of a file, checked to be regular; the values are still text.

    Attributes:
        path: the file.
        first: beginning of the first interval, in UTC.
        step_s: length of each [s].
        header: names of the columns, that of the time first.
        rows: line number and cells of each row.
    """

    path: str
    first: datetime
    step_s: float
    header: tuple[str, ...]
    rows: tuple[tuple[int, list[str]], ...]

    def column(self, name: str, accepted: str, low: float, key: str) -> list[float]:
        """Values of one column, each a finite number of at least `low`.

        Args:
            name: of the column; accepted: what a value has to be, in words; key: setting that named the column.

        Raises:
            InputError: no such column, or a value that is missing or out of range; the message names the line.
        """
        if name not in self.header[1:]:
            raise InputError(key, name, " | ".join(self.header[1:]), where=self.path)
        at = self.header.index(name)
        try:
            values = [float(row[at]) for _, row in self.rows]
            if math.isfinite(sum(values)) and min(values) >= low:
                return values
        except (ValueError, IndexError):
            pass  # found again below, with its line
        return [self._value(line, row, at, name, accepted, low) for line, row in self.rows]

    def _value(self, line: int, row: list[str], at: int, name: str, accepted: str, low: float) -> float:
        where = f"{self.path} line {line}"
        if len(row) <= at:
            raise InputError(name, None, "a value in every row", where=where)
        try:
            return number(name, float(row[at]), accepted, low=low)
        except ValueError:  # float() of a text, or the InputError of a number out of range
            raise InputError(name, row[at], f"{accepted} in every row", where=where) from None


def read(path: str | Path, key: str) -> SeriesFile:
    """Read a file, or take it from the last ones read if it has not changed since.

    Args:
        path: the CSV file.
        key: setting that named it, for errors.

    Raises:
        InputError: it cannot be read, or its rows are not one interval after another.
    """
    try:
        state = Path(path).stat()
        return _read(str(path), key, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise InputError(key, str(path), f"a CSV file that can be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(key, str(path), "a CSV file in UTF-8") from None


@lru_cache(maxsize=8)
def _read(path: str, key: str, modified_ns: int, size: int) -> SeriesFile:
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if not header or header[0] != TIME_COLUMN:
            given = header[0] if header else None
            raise InputError("first column", given, f"{TIME_COLUMN}, then a column a zone", where=f"{path} line 1")
        rows = tuple((reader.line_num, row) for row in reader)
    if not rows:
        raise InputError(key, path, "a file with at least one hour of data")
    first, step_s = _clock(path, rows)
    return SeriesFile(path, first, step_s, tuple(header), rows)


def _clock(path: str, rows: tuple[tuple[int, list[str]], ...]) -> tuple[datetime, float]:
    """First instant and interval of the rows, after checking that each comes an interval after the one before."""
    line, row = rows[0]
    first = _instant(path, line, row)
    step_s = _step_s(first, _instant(path, *rows[1])) if len(rows) > 1 else SECONDS_PER_HOUR
    step = timedelta(seconds=step_s)
    offset, expected = first.utcoffset(), first
    seconds_in = first.minute * 60 + first.second
    if first.microsecond or seconds_in % step_s:
        raise InputError(TIME_COLUMN, row[0], "the beginning of an hour", where=f"{path} line {line}")
    for line, row in rows:
        instant = _instant(path, line, row)
        where = f"{path} line {line}"
        if instant.utcoffset() != offset:
            accepted = f"one time zone in all rows, that of line {rows[0][0]} ({rows[0][1][0]}); best UTC"
            raise InputError(TIME_COLUMN, row[0], accepted, where=where)
        if instant != expected:
            if step_s == SECONDS_PER_HOUR and (instant.minute or instant.second or instant.microsecond):
                raise InputError(TIME_COLUMN, row[0], "the beginning of an hour", where=where)
            each = "every hour" if step_s == SECONDS_PER_HOUR else f"every {step_s / 60.0:g} minutes"
            what = "that one is missing" if instant > expected else "this one is repeated or out of order"
            accepted = f"{expected:%Y-%m-%d %H:%M} ({each} once, in order: {what})"
            raise InputError(TIME_COLUMN, row[0], accepted, where=where)
        expected = instant + step
    return (first if offset is not None else first.replace(tzinfo=UTC)).astimezone(UTC), step_s


def _step_s(first: datetime, second: datetime) -> float:
    """Interval between the first two rows if it divides an hour; else an hour, which the rows then fail."""
    if (first.tzinfo is None) != (second.tzinfo is None):
        return SECONDS_PER_HOUR
    seconds = (second - first).total_seconds()
    fits = FINEST_S <= seconds < SECONDS_PER_HOUR and SECONDS_PER_HOUR % seconds == 0.0
    return seconds if fits else SECONDS_PER_HOUR


def _instant(path: str, line: int, row: list[str]) -> datetime:
    where = f"{path} line {line}"
    try:
        return datetime.fromisoformat(row[0])
    except IndexError:
        raise InputError(TIME_COLUMN, None, "a value in every row", where=where) from None
    except ValueError:
        raise InputError(TIME_COLUMN, row[0], "an hour such as 2024-01-31 23:00:00", where=where) from None

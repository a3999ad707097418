"""CSV files whose columns are found by field: by the user's mapping, or by the names that are common."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenarios.schema import Check, integer, nearest, number
from sim.errors import InputError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        where: file and line.
        names: column of each field that the table has.
        cells: text of each field.
    """

    where: str
    names: Mapping[str, str]
    cells: Mapping[str, str]

    def __contains__(self, field: str) -> bool:
        """Whether the row says anything about a field."""
        return bool(self.cells.get(field))

    def text(self, field: str) -> str:
        """A text that is not empty."""
        value = self.cells.get(field, "")
        if not value:
            raise InputError(self.names.get(field, field), value, "a text that is not empty", self.where)
        return value

    def positive(self, field: str, accepted: str = "a number > 0") -> float:
        """A finite number > 0."""
        return self._number(field, number(accepted, above=0.0))

    def not_negative(self, field: str, accepted: str = "a number >= 0") -> float:
        """A finite number >= 0."""
        return self._number(field, number(accepted, low=0.0))

    def any_number(self, field: str) -> float:
        """A finite number."""
        return self._number(field, number("a finite number"))

    def whole(self, field: str, low: int = 1) -> int:
        """A whole number of at least `low`; 4.0 is one."""
        return int(self._number(field, integer(low)))

    def _number(self, field: str, check: Check[float]) -> float:
        name, value = self.names.get(field, field), self.cells.get(field, "")
        try:
            converted: object = float(value)
        except ValueError:
            converted = value
        try:
            return check(name, converted)
        except InputError as error:
            raise InputError(name, value, error.accepted, self.where) from None


def read_table(path: Path, known: Mapping[str, Sequence[str]], mapping: Mapping[str, str]) -> list[Row]:
    """Read a CSV file with a header.

    Args:
        path: the file.
        known: the fields, each with the column names that it commonly has.
        mapping: the user's own column name by field; goes first.

    Returns:
        The rows, at least one. Fields without a column are absent in them.

    Raises:
        InputError: it cannot be read, a mapped column is missing, or a row has more or fewer cells than the header.
    """
    for field in mapping:
        if field not in known:
            raise InputError(f"columns.{field}", mapping[field], f"{nearest(field, known)}fields: {', '.join(known)}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            names = _columns(path, header, known, mapping)
            rows = [_row(path, lines.line_num, names, header, cells) for cells in lines if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("file", str(path), f"a readable CSV file ({reason})") from None
    if not rows:
        raise InputError("file", str(path), "a CSV file with a header and at least one row")
    return rows


def _columns(
    path: Path, header: Sequence[str], known: Mapping[str, Sequence[str]], mapping: Mapping[str, str]
) -> dict[str, str]:
    """Column of each field that the file has."""
    names = {}
    for field, common in known.items():
        if field in mapping:
            if mapping[field] not in header:
                accepted = f"a column of {path.name}: {', '.join(header)}"
                raise InputError(f"columns.{field}", mapping[field], accepted)
            names[field] = mapping[field]
        else:
            found = next((name for name in common if name in header), None)
            if found is not None:
                names[field] = found
    return names


def _row(path: Path, line: int, names: Mapping[str, str], header: Sequence[str], cells: Sequence[str]) -> Row:
    where = f"{path} line {line}"
    if len(cells) != len(header):
        raise InputError("row", len(cells), f"{len(header)} cells, as the header has", where)
    by_column = dict(zip(header, cells))
    return Row(where, names, {field: by_column[name].strip() for field, name in names.items()})


def need(rows: Sequence[Row], fields: Sequence[str], path: Path) -> None:
    """Refuse a table without a column for one of the fields.

    Raises:
        InputError: names the field and how to map it.
    """
    for field in fields:
        if field not in rows[0].names:
            raise InputError(f"columns.{field}", None, f"the name of the column of {path.name} that holds it")

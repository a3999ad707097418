"""CSV files whose columns are found by field: by the user's mapping, or by the names that are common."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenarios.schema import integer, nearest
from scenarios.schema import number as number_check
from sim.errors import InputError


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its texts by field, and where it stands."""

    where: str
    names: Mapping[str, str]
    cells: Mapping[str, str]

    def __contains__(self, field: str) -> bool:
        """Whether the row has a value for the field."""
        return bool(self.cells.get(field))

    def text(self, field: str) -> str:
        """A text that is not empty."""
        value = self.cells.get(field, "")
        if not value:
            raise InputError(self.names.get(field, field), value, "a text that is not empty", self.where)
        return value

    def number(self, field: str, accepted: str, low: float = 0.0, above: float = 0.0) -> float:
        """A finite number >= `low`, and > `above` unless `low` is."""
        return self._checked(field, float, number_check(accepted, low=low, above=above if low <= above else low))

    def whole(self, field: str, low: int = 1) -> int:
        """A whole number of at least `low`; 4.0 is one."""
        return int(self._checked(field, float, integer(low)))

    def _checked(self, field: str, convert: type[float], check: object) -> float:
        name, value = self.names.get(field, field), self.cells.get(field, "")
        try:
            converted: object = convert(value)
        except ValueError:
            converted = value
        try:
            return float(check(name, converted))  # type: ignore[operator]
        except InputError as error:
            raise InputError(name, value, error.accepted, self.where) from None

"""Reads what sets requests apart out of the columns of a trace: an empty cell, or a missing key, is the default."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sim.errors import InputError
from sim.workload.checks import MAX_TOKENS
from sim.workload.traits import TraitColumns

MAX_LABEL = 1 << 20  #: above any number of a tenant or adapter; bounds tables that are indexed by them
_PRIORITIES = 10**6
Cell = Callable[[Any], float | None]  #: a cell's value, None where it cannot be used


class TraitReader:
    """Converts columns block by block. Names of tenants and adapters are numbered in the order in which they occur.

    A column of tenants or adapters whose first cell is a whole number holds numbers; any other holds names.

    Args:
        path: the file, for errors.
        names: names of the columns by trait.
    """

    def __init__(self, path: Path, names: Mapping[str, str]) -> None:
        self._path, self._names = path, names
        self._labels = {"tenant": _Labels(0), "adapter": _Labels(1)}

    def read(self, lines: list[int], columns: list[list[Any]]) -> TraitColumns:
        """Convert one block; columns are in the order of the names.

        Raises:
            InputError: a cell cannot be used; the message names file and line.
        """
        found = TraitColumns()
        for (trait, name), values in zip(self._names.items(), columns):
            convert, accepted = self._cell(trait, values)
            cells = [convert(value) for value in values]
            if None in cells:
                at = cells.index(None)
                raise InputError(name, values[at], accepted, f"{self._path} line {lines[at]}")
            kind = np.float64 if trait == "deadline_s" else np.int64
            setattr(found, trait, np.array(cells, dtype=kind))
        self._refuse_imageless(found, lines)
        return found

    def _cell(self, trait: str, values: list[Any]) -> tuple[Cell, str]:
        """How to read a trait's cells, and what they may be."""
        if trait in self._labels:
            labels = self._labels[trait]
            return labels.reader(values), labels.accepted
        if trait == "deadline_s":
            return _deadline, "a time > 0 s after the arrival, or nothing"
        ranges = {"priority": (-_PRIORITIES, _PRIORITIES), "private": (0, 1)}
        low, high = ranges.get(trait, (0, MAX_TOKENS))
        return (lambda value: _whole(value, low, high)), f"a whole number from {low} to {high}, or nothing"

    def _refuse_imageless(self, found: TraitColumns, lines: list[int]) -> None:
        """Image tokens without an image are a mistake in the columns."""
        if found.images is None or found.image_tokens is None:
            return
        wrong = (found.images == 0) & (found.image_tokens > 0)
        if wrong.any():
            at = int(np.argmax(wrong))
            where = f"{self._path} line {lines[at]}"
            raise InputError(self._names["image_tokens"], int(found.image_tokens[at]), "0 without an image", where)


class _Labels:
    """A column of tenants or adapters: numbers, or names that get numbers from `first` up."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._numbers: dict[str, int] = {}
        self._numeric: bool | None = None

    @property
    def accepted(self) -> str:
        """What a cell may be."""
        if self._numeric:
            return f"a whole number from 0 to {MAX_LABEL - 1}, as in the first row that has one"
        return f"a text, of at most {MAX_LABEL - 1} different ones"

    def reader(self, values: list[Any]) -> Cell:
        """How to read its cells; settled by the first that is not empty."""
        if self._numeric is None:
            filled = [value for value in values if value not in (None, "")]
            if filled:
                self._numeric = _whole(filled[0], -MAX_TOKENS, MAX_TOKENS) is not None
        return self._number if self._numeric else self._name

    def _number(self, value: Any) -> float | None:
        return _whole(value, 0, MAX_LABEL - 1)

    def _name(self, value: Any) -> float | None:
        if value is None or (value == "" and self._first):
            return 0  # no adapter; a tenant without a name is one like others
        if not isinstance(value, str | int) or isinstance(value, bool):
            return None
        number = self._numbers.setdefault(str(value), self._first + len(self._numbers))
        return number if number < MAX_LABEL else None


def _whole(value: Any, low: int, high: int) -> int | None:
    """A whole number in [low, high], 0 for nothing, None for all else."""
    if value is None or value == "":
        return 0
    number = _float(value)
    return int(number) if low <= number <= high and number == int(number) else None


def _deadline(value: Any) -> float | None:
    if value is None or value == "":
        return math.inf
    number = _float(value)
    return number if number > 0.0 else None


def _float(value: Any) -> float:
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan

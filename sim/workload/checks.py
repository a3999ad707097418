"""Checks of arguments that come straight from a configuration: one clear error each, with the configuration's key."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sim.errors import InputError
from sim.qoe import SLOClass

T = TypeVar("T")
MAX_RATE = 1e9  #: fastest and (its inverse) slowest arrivals accepted [1/s]; keeps times finite
MAX_TOKENS = 10**9  #: longest prompt or output accepted [tokens]; far above any model, far below int64


def number(key: str, value: object, accepted: str, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number in [low, high].

    Raises:
        InputError: it is no number (a bool or a text is none), not finite, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(key, value, accepted)
    result = float(value)
    if not (math.isfinite(result) and low <= result <= high):
        raise InputError(key, value, accepted)
    return result


def positive(key: str, value: object, accepted: str) -> float:
    """Return a finite number > 0."""
    return number(key, value, accepted, low=math.ulp(0.0))


def rate(key: str, value: object, zero: bool = False) -> float:
    """Return an arrival rate [1/s]: > 0, or >= 0 where `zero` is allowed."""
    if zero:
        return number(key, value, "a rate >= 0 requests/s (at most 1e9)", 0.0, MAX_RATE)
    return number(key, value, "a rate > 0 requests/s (1e-9 to 1e9)", 1.0 / MAX_RATE, MAX_RATE)


def whole(key: str, value: object, low: int, high: int, unit: str = "") -> int:
    """Return a whole number in [low, high]; a float that is whole counts as one."""
    accepted = f"a whole number from {low} to {high}{unit and ' ' + unit}"
    result = number(key, value, accepted, low, high)
    if result != int(result):
        raise InputError(key, value, accepted)
    return int(result)


def tokens(key: str, value: object) -> int:
    """Return a length in tokens, at least 1."""
    return whole(key, value, 1, MAX_TOKENS, "tokens")


def duration(value: object, otherwise: str) -> float:
    """Return the length of a workload [s], > 0; infinite where None is given."""
    return math.inf if value is None else positive("workload.duration_s", value, f"a duration > 0 s, {otherwise}")


def limit(key: str, value: object) -> int | None:
    """Return a number of requests, at least 1, or None for no limit."""
    return None if value is None else whole(key, value, 1, 2**53, "requests, or null for no limit")


def pairs(key: str, value: object, accepted: str) -> list[tuple[float, float]]:
    """Return a table of at least one row of two finite numbers."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InputError(key, value, accepted)
    rows: list[tuple[float, float]] = []
    for row in value:
        if isinstance(row, str) or not isinstance(row, Iterable) or len(cells := list(row)) != 2:
            raise InputError(key, row, accepted)
        rows.append((number(key, cells[0], accepted), number(key, cells[1], accepted)))
    if not rows:
        raise InputError(key, [], accepted)
    return rows


def slo_classes(value: Sequence[SLOClass]) -> tuple[SLOClass, ...]:
    """Return at least one SLO class."""
    accepted = "at least one SLOClass"
    if isinstance(value, SLOClass) or not isinstance(value, Iterable):
        raise InputError("slo.classes", value, accepted)
    classes = tuple(value)
    if not classes or not all(isinstance(item, SLOClass) for item in classes):
        raise InputError("slo.classes", value, accepted)
    names = [item.name for item in classes]
    if len(set(names)) < len(names):
        raise InputError("slo.classes", names, "names that occur once")
    return classes


def slo_mix(value: Sequence[float] | None, classes: Sequence[SLOClass]) -> list[float] | None:
    """Return the cumulative shares of the SLO classes, or None where every request is of the first class."""
    if value is None:
        return None
    accepted = f"{len(classes)} weight(s) >= 0, one an SLO class, not all 0"
    if isinstance(value, str) or not isinstance(value, Iterable) or len(weights := list(value)) != len(classes):
        raise InputError("workload.slo_mix", value, accepted)
    weights = [number("workload.slo_mix", weight, accepted, 0.0) for weight in weights]
    total = math.fsum(weights)
    if not 0.0 < total < math.inf:
        raise InputError("workload.slo_mix", value, accepted)
    return [math.fsum(weights[: i + 1]) / total for i in range(len(weights))]


def flag(key: str, value: object) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise InputError(key, value, "true | false")
    return value


def arguments(key: str, value: object, cls: type, accepted: str = "") -> dict[str, Any]:
    """Return the arguments of `cls` that a mapping of a configuration holds; `key` itself is none of them.

    Raises:
        InputError: it is no mapping, has a key that the class does not know, or lacks one that it needs.
    """
    parameters = {name: each for name, each in inspect.signature(cls).parameters.items() if name != "key"}
    if not isinstance(value, Mapping):
        raise InputError(key, value, accepted or f"a mapping of {', '.join(parameters)}, or null")
    for name, entry in value.items():
        if name not in parameters:
            raise InputError(f"{key}.{name}", entry, f"no such key; keys here: {', '.join(parameters)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in value:
            raise InputError(f"{key}.{name}", None, "a value; it is needed here")
    return {str(name): entry for name, entry in value.items()}


def made(key: str, value: object, cls: type[T]) -> T:
    """Return an object of `cls` made of a mapping of its arguments; an object of it passes."""
    return value if isinstance(value, cls) else cls(**arguments(key, value, cls))


def optional(key: str, value: object, cls: type[T]) -> T | None:
    """Return what `made` does, or None for None."""
    return None if value is None else made(key, value, cls)

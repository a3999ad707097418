"""The one error users see: which key, which value, what would have been accepted."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")
_LONGEST_ECHO = 200  #: characters; an object of many parts would fill the screen


class InputError(ValueError):
    """A value that a user gave and that the simulator cannot use.

    Args:
        key: name of the setting, file column or argument, dotted as in the configuration (``workload.rate``).
        value: what was given; echoed in the message.
        accepted: what would have been accepted, in a few words.
        where: optional place, such as ``trace.csv line 17``.
    """

    def __init__(self, key: str, value: object, accepted: str, where: str | None = None) -> None:
        self.key, self.value, self.accepted, self.where = key, value, accepted, where
        place = f"{where}: " if where else ""
        super().__init__(f"{place}{key}={_echo(value)} is not valid; accepted: {accepted}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, object, str, str | None]]:
        return InputError, (self.key, self.value, self.accepted, self.where)


def _echo(value: object) -> str:
    """A value as the message shows it: texts whole, as paths may be long; of objects, the beginning."""
    shown = repr(value)
    return shown if isinstance(value, str) or len(shown) <= _LONGEST_ECHO else f"{shown[:_LONGEST_ECHO]}..."


def number(
    key: str, value: object, accepted: str, *, low: float = -math.inf, above: float = -math.inf, high: float = math.inf
) -> float:
    """Return `value` as a float if it is a finite number with low <= value <= high and value > above.

    Raises:
        InputError: it is not, or not a number at all (a text, a boolean, NaN, None).
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(key, value, accepted)
    real = float(value)
    if not (math.isfinite(real) and low <= real <= high and real > above):
        raise InputError(key, value, accepted)
    return real


def whole(key: str, value: object, accepted: str, *, low: int = 0) -> int:
    """Return `value` as an int if it is a whole number of at least `low`.

    Raises:
        InputError: it is not, or its type is none of whole numbers (2.0, a text, a boolean).
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
        raise InputError(key, value, accepted)
    return int(value)


def instance(key: str, value: object, kind: type[T], accepted: str) -> T:
    """Return `value` if it is of the type `kind`.

    Raises:
        InputError: it is not.
    """
    if not isinstance(value, kind):
        raise InputError(key, value, accepted)
    return value


def instances(key: str, values: object, kind: type[T], accepted: str) -> tuple[T, ...]:
    """Return `values` as a tuple if it is a list, tuple or the like whose entries are all of the type `kind`.

    Raises:
        InputError: it is not.
    """
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise InputError(key, values, accepted)
    return tuple(instance(f"{key}[{index}]", value, kind, accepted) for index, value in enumerate(values))


def provider(key: str, value: T, methods: Iterable[str], accepted: str) -> T:
    """Return `value` if it is an object, not a class, that has all of `methods`.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, type) or not all(callable(getattr(value, name, None)) for name in methods):
        raise InputError(key, value, accepted)
    return value

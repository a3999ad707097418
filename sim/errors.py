"""The one error users see: which key, which value, what would have been accepted."""

from __future__ import annotations

import math
import numbers


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
        super().__init__(f"{place}{key}={value!r} is not valid; accepted: {accepted}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, object, str, str | None]]:
        return InputError, (self.key, self.value, self.accepted, self.where)


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

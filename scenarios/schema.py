"""Reading a configuration strictly: every key is checked, every error names the key, the value and what is accepted."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from sim.errors import InputError
from sim.errors import number as finite_number

T = TypeVar("T")
D = TypeVar("D")
Check = Callable[[str, object], T]  #: takes the dotted key and the raw value, returns the value or raises InputError


class Section:
    """One mapping of the configuration. Whoever reads it asks key by key, then calls `finish`, which refuses the rest.

    Args:
        values: the mapping as it was composed.
        key: its dotted name, empty for the whole configuration.
    """

    def __init__(self, values: object, key: str) -> None:
        if not isinstance(values, Mapping):
            raise InputError(key, values, "a mapping of keys to values")
        self.key = key
        self.values = {str(name): value for name, value in values.items()}
        self._known: list[str] = []

    def path(self, name: str) -> str:
        """Dotted name of one of its keys."""
        return f"{self.key}.{name}" if self.key else name

    def get(self, name: str, check: Check[T], default: D) -> T | D:
        """Value of `name` after `check`; `default` where it is absent or null."""
        value = self._take(name)
        return default if value is None else check(self.path(name), value)

    def need(self, name: str, check: Check[T]) -> T:
        """Value of `name` after `check`, which also refuses an absent or null one."""
        return check(self.path(name), self._take(name))

    def child(self, name: str) -> Section:
        """The mapping under `name`; empty where it is absent or null."""
        value = self._take(name)
        return Section({} if value is None else value, self.path(name))

    def children(self, name: str) -> dict[str, Section]:
        """The mappings under the keys of the mapping `name`; a null one (a key that was taken out) is skipped."""
        group = self.child(name)
        return {key: Section(value, group.path(key)) for key, value in group.values.items() if value is not None}

    def finish(self) -> None:
        """Refuse keys that nobody asked for."""
        for name, value in self.values.items():
            if name not in self._known:
                raise InputError(self.path(name), value, unknown_key(name, self._known))

    def _take(self, name: str) -> object:
        if name not in self._known:
            self._known.append(name)
        return self.values.get(name)


def unknown_key(name: str, known: Collection[str]) -> str:
    """What to say of a key that does not exist: the nearest ones first, then all."""
    return f"no such key; {nearest(name, known)}keys here: {', '.join(known) or 'none'}"


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean x? `` or nothing."""
    close = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}? " if close else ""


@contextmanager
def within(key: str) -> Iterator[None]:
    """Give errors of objects, which know only their own names (``engine.block_size``), the whole dotted key.

    An error that names a place in a file keeps its key, which is a column there.
    """
    try:
        yield
    except InputError as error:
        if error.where or error.key.startswith(f"{key}."):
            raise
        raise InputError(f"{key}.{error.key}", error.value, error.accepted) from error


@contextmanager
def renamed(own: str, key: str) -> Iterator[None]:
    """Give errors of objects that know a part of their key (``pools.NAME``) the whole dotted one."""
    try:
        yield
    except InputError as error:
        if error.where or not error.key.startswith(f"{own}."):
            raise
        raise InputError(f"{key}{error.key.removeprefix(own)}", error.value, error.accepted) from error


def text(key: str, value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise InputError(key, value, "a text that is not empty")
    return value


def boolean(key: str, value: object) -> bool:
    """True or false; no number, no text."""
    if not isinstance(value, bool):
        raise InputError(key, value, "true | false")
    return value


def integer(low: int = 0) -> Check[int]:
    """A whole number of at least `low`; 4.0 is one, true and "4" are not."""

    def check(key: str, value: object) -> int:
        accepted = f"a whole number of at least {low}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(key, value, accepted)
        if value != int(value) or value < low:
            raise InputError(key, value, accepted)
        return int(value)

    return check


def number(accepted: str, low: float = -math.inf, above: float = -math.inf, high: float = math.inf) -> Check[float]:
    """A finite number with low <= x <= high and x > above; `accepted` says so in words."""

    def check(key: str, value: object) -> float:
        return finite_number(key, value, accepted, low=low, above=above, high=high)

    return check


POSITIVE = number("a number > 0", above=0.0)
SHARE = number("a share in (0, 1]", above=0.0, high=1.0)
COUNT = integer(1)


def one_of(*names: str) -> Check[str]:
    """One of a few words."""

    def check(key: str, value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise InputError(key, value, " | ".join(names))
        return value

    return check


def list_of(check: Check[T]) -> Check[list[T]]:
    """A list whose entries pass `check`."""

    def check_all(key: str, value: object) -> list[T]:
        if not isinstance(value, list | tuple):
            raise InputError(key, value, "a list, such as [a, b]")
        return [check(f"{key}[{index}]", entry) for index, entry in enumerate(value)]

    return check_all


def anything(key: str, value: object) -> object:
    """Any value: for keys whose meaning depends on their type."""
    return value


def one_line(error: BaseException) -> str:
    """The message of an exception on one line."""
    return " ".join(str(error).split())

"""What a study calls uncertain: one input at a time, at its low and its high end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from scenarios.schema import Check, Section, anything, list_of
from sim.errors import InputError

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Way(Generic[S]):
    """An input, what it is set to at its low and high end, and the setups with that."""

    name: str
    ends: tuple[str, str]
    setups: tuple[S, S]


class Ways(Generic[S]):
    """Collects the inputs that a preset's section gives two ends for.

    Args:
        section: by key, a list of two values; a key that is not there is not varied.
    """

    def __init__(self, section: Section) -> None:
        self._section, self.found = section, list[Way[S]]()

    def vary(self, key: str, check: Check[Any], change: Callable[[Any], S], name: str | None = None) -> None:
        """Take one: `change` makes the setup of a value; `name` is what tables call it, if not the key.

        Raises:
            InputError: these are not two values that `check` accepts.
        """
        section = self._section
        given = section.get(key, list_of(anything), None)
        if given is None:
            return
        if len(given) != 2:
            raise InputError(section.path(key), given, "a list of two values, its low and its high end")
        low, high = (None if end is None else check(section.path(key), end) for end in given)
        self.found.append(Way(name or key, (_word(low), _word(high)), (change(low), change(high))))


def _word(end: object) -> str:
    return "none" if end is None else f"{end:g}" if isinstance(end, (int, float)) else str(end)

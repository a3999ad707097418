"""System prompts and few-shot examples that many prompts begin with, and the names of prefix units they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from sim.errors import InputError
from sim.workload import checks
from sim.workload.lengths import IntArray
from sim.workload.popularity import Popularity

KEY = "workload.prefix"
NAMES_A_BATCH = 1 << 17  #: bounds the memory of one batch: some 10 MB of names
BATCH = 4096  #: most requests of one batch


class SharedPrefix:
    """Each prompt begins with one of several texts.

    Args:
        tokens: length of the texts [tokens], one number or one for each; 0 for none.
        groups: how many texts there are.
        popularity: ``uniform``, ``zipf`` or one weight a text.
        exponent: of Zipf's law; None is 1.
        unit: tokens that a name stands for [tokens], a multiple of the engines' block size. Coarser is faster, but a
            prefix cache then finds whole units only.
        added: True puts the text in front of the prompt that was drawn; False lets the prompt begin with it, and a
            shorter prompt is its beginning.
    """

    def __init__(
        self,
        tokens: int | Sequence[int],
        groups: int = 1,
        popularity: str | Sequence[float] = "uniform",
        exponent: float | None = None,
        unit: int = 16,
        added: bool = True,
    ) -> None:
        self._popularity = Popularity(KEY, groups, popularity, exponent, ("groups", "popularity"))
        self.groups = self._popularity.count
        each = [tokens] * self.groups if isinstance(tokens, int | float) else tokens
        if isinstance(each, str) or not isinstance(each, Sequence) or len(each) != self.groups:
            raise InputError(f"{KEY}.tokens", tokens, f"a whole number of tokens, or a list of {self.groups}")
        most = checks.MAX_TOKENS
        self.tokens = np.array([checks.whole(f"{KEY}.tokens", one, 0, most, "tokens") for one in each])
        self.unit = checks.whole(f"{KEY}.unit", unit, 1, most, "tokens")
        self.added = checks.flag(f"{KEY}.added", added)

    def draw(self, rng: np.random.Generator, n: int) -> IntArray:
        """Draw which text each of `n` prompts begins with."""
        return self._popularity.draw(rng, n)


class UnitNames:
    """Gives names to prefix units: those of a shared text by text and adapter, all others once.

    KV of the same tokens under another adapter is other KV, so texts are not shared between adapters.

    Args:
        prefix: the shared texts.
        adapters: highest number of an adapter.
    """

    def __init__(self, prefix: SharedPrefix, adapters: int) -> None:
        self._groups = prefix.groups
        self._most = int(prefix.tokens.max()) // prefix.unit
        self._shared: dict[int, tuple[int, ...]] = {}
        self._next = self._groups * (adapters + 1) * self._most

    def reserve(self, counts: IntArray) -> IntArray:
        """Set so many names aside for each of several prompts or conversations; returns the first of each."""
        ends = self._next + np.cumsum(counts)
        self._next = int(ends[-1])
        return np.asarray(ends - counts)

    def rows(self, text: IntArray, shared: IntArray, first: IntArray, units: IntArray) -> list[tuple[int, ...]]:
        """The names of prompts and their answers.

        Args:
            text: which text each begins with, by `text_of`.
            shared: units that lie within it.
            first: the first name of its own.
            units: all units.
        """
        return [
            self._text(number)[:common] + tuple(range(own, own + total - common))
            for number, common, own, total in zip(text.tolist(), shared.tolist(), first.tolist(), units.tolist())
        ]

    def text_of(self, group: IntArray, adapter: IntArray | None) -> IntArray:
        """Number a text by its group and its reader's adapter."""
        return group if adapter is None else group + self._groups * adapter

    def _text(self, number: int) -> tuple[int, ...]:
        names = self._shared.get(number)
        if names is None:
            names = self._shared[number] = tuple(range(number * self._most, (number + 1) * self._most))
        return names


def parts(units: IntArray | None, n: int) -> Iterator[slice]:
    """Cut `n` requests into pieces that stay small in memory however many names each has."""
    if units is None:
        yield from (slice(start, min(start + BATCH, n)) for start in range(0, n, BATCH))
        return
    if n:
        weight = np.cumsum(np.maximum(units, NAMES_A_BATCH // BATCH))
        cuts = np.flatnonzero(np.diff(weight // NAMES_A_BATCH)) + 1
        bounds = [0, *cuts.tolist(), n]
        yield from (slice(start, end) for start, end in pairwise(bounds))

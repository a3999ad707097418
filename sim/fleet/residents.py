"""What the replicas of a pool hold, by what is held: prefixes in KV caches, adapters in their slots.

A balancer or router that asks "who has this?" must not ask a thousand replicas. Whoever asks first has an index made,
which the replicas keep from then on; pools that nobody asks keep none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from sim.serving.prefix_cache import Watch

_NOBODY: Mapping[int, int] = {}


class Holder(Protocol):
    """Something of a replica that holds what has a number."""

    watch: Watch | None

    def held(self) -> list[int]:
        """What it holds now."""
        ...


class Residents:
    """The index.

    Args:
        holders: one a replica; None holds nothing.
    """

    def __init__(self, holders: Iterable[Holder | None]) -> None:
        self._where: dict[int, dict[int, int]] = {}  # what -> replica -> how often, in order of coming there
        for replica, holder in enumerate(holders):
            if holder is not None:
                self._count(replica, holder.held(), 1)
                holder.watch = partial(self._count, replica)

    def _count(self, replica: int, items: Iterable[int], by: int) -> None:
        where = self._where
        for item in items:
            at = where.setdefault(item, {})
            at[replica] = at.get(replica, 0) + by
            if not at[replica]:
                del at[replica]
                if not at:
                    del where[item]

    def of(self, item: int) -> Mapping[int, int]:
        """The replicas that hold `item`, as keys."""
        return self._where.get(item, _NOBODY)

    def deepest(self, items: Sequence[int]) -> tuple[int, Mapping[int, int]]:
        """How many leading `items` a replica holds, and which do. Who holds one holds all before it, so O(log n)."""
        low, high = 0, len(items)
        while low < high:
            depth = (low + high + 1) // 2
            low, high = (depth, high) if items[depth - 1] in self._where else (low, depth - 1)
        return low, self.of(items[low - 1]) if low else _NOBODY

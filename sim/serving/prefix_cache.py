"""Prefix caching: prompts that begin alike share KV blocks, and what nobody uses stays until its room is needed.

A prompt names its prefix by hashes, one for each full *unit* of tokens (a KV block, or several); a hash stands for the
unit and all before it. Units in use are counted once however many sequences read them; idle ones are evicted in the
order in which they fell idle, the deepest unit of a prompt first.

With a second tier in host memory, what is evicted goes there, copied while the engine computes; a prompt that continues
with units found there loads them instead of computing them. They stay in the host as well, until it is full and they
are the ones longest unused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from sim.errors import InputError
from sim.serving.sequence import Sequence

Watch = Callable[[Iterable[int], int], None]


class PrefixCache:
    """The shared units of one replica.

    Args:
        block_size: tokens a KV block.
        unit: tokens a hash stands for, a multiple of `block_size`.
        host_units: units that host memory holds; 0 for no second tier.

    Attributes:
        watch: None, or called with units and by how many more (1) or fewer (-1) tiers hold each of them now.
        saved: blocks that sequences need together less than each for itself.
        loaded: units that the last to come loaded from the host; loads: by all.
    """

    # fmt: off
    __slots__ = (
        "_host", "_host_units", "_idle", "_users", "blocks_a_unit", "loaded", "loads", "saved", "unit", "watch",
    )
    # fmt: on

    def __init__(self, block_size: int, unit: int, host_units: int = 0) -> None:
        if unit < 1 or unit % block_size:
            raise InputError("workload prefix unit", unit, f"a multiple of engine.block_size ({block_size}) tokens")
        self.unit, self.blocks_a_unit = unit, unit // block_size
        self._users: dict[int, int] = {}  # resident units, and how many sequences use each
        self._idle: dict[int, None] = {}  # resident and unused, longest idle first
        self._host: dict[int, None] = {}  # units in host memory, longest unused first
        self._host_units = host_units
        self.saved = self.loaded = self.loads = 0
        self.watch: Watch | None = None

    def held(self) -> list[int]:
        """All units of both tiers; those in both occur twice."""
        return [*self._users, *self._host]

    def hits(self, seq: Sequence) -> list[int]:
        """The leading units of a prompt that need not be computed; its last token is never among what they hold.

        Those that are resident, and from the first that is not, those that the host has, resident or not.
        """
        found = []
        hashes = seq.request.hashes or ()
        tier = self._users
        for unit in hashes[: (seq.request.prompt - 1) // self.unit]:
            if unit not in tier:
                if unit not in self._host:
                    break
                tier = self._host  # type: ignore[assignment]
            found.append(unit)
        return found

    def shared_blocks(self, hits: list[int]) -> int:
        """Blocks of these units that somebody uses already, so that one more user takes no room."""
        return self.blocks_a_unit * sum(self._users.get(unit, 0) > 0 for unit in hits)

    def acquire(self, seq: Sequence, hits: list[int]) -> None:
        """Let a sequence use these units, loading those that are not resident; its prefill starts behind them."""
        users = self._users
        self.loaded = 0
        for unit in hits:
            if unit not in users:
                users[unit] = 0
                self.loaded += 1
                if self.watch is not None:
                    self.watch((unit,), 1)
                del self._host[unit]
                self._host[unit] = None
            elif users[unit]:
                self.saved += self.blocks_a_unit
            else:
                del self._idle[unit]
            users[unit] += 1
        self.loads += self.loaded
        seq.units = hits
        seq.done = max(seq.request.cached, len(hits) * self.unit)

    def register(self, seq: Sequence, tokens: int) -> None:
        """The first `tokens` tokens of a sequence have been computed: the units they fill become resident, but for
        those that others computed meanwhile."""
        hashes, known = seq.request.hashes or (), len(seq.units)
        for unit in hashes[known : tokens // self.unit]:
            if unit not in self._users:
                self._users[unit] = 1
                seq.units.append(unit)
        if self.watch is not None:
            self.watch(seq.units[known:], 1)

    def release(self, seq: Sequence) -> None:
        """A sequence ends or is preempted."""
        for unit in reversed(seq.units):
            self._users[unit] -= 1
            if self._users[unit]:
                self.saved -= self.blocks_a_unit
            else:
                self._idle[unit] = None
        seq.units = []

    def clear(self) -> None:
        """Forget what nobody uses, in both tiers: the replica has failed."""
        if self.watch is not None:
            self.watch([*self._idle, *self._host], -1)
        for unit in self._idle:
            del self._users[unit]
        self._idle.clear()
        self._host.clear()

    def evict(self, free_blocks: int) -> None:
        """Drop idle units until the rest fits into `free_blocks` blocks."""
        most = max(0, free_blocks) // self.blocks_a_unit
        gone = list(islice(self._idle, max(0, len(self._idle) - most)))
        for unit in gone:
            del self._idle[unit], self._users[unit]
            if self._host_units:
                self._keep(unit)
        if gone and self.watch is not None:
            self.watch(gone, -1)

    def _keep(self, unit: int) -> None:
        """Keep a unit in the host, where the one longest unused makes room."""
        host = self._host
        if unit not in host and self.watch is not None:
            self.watch((unit,), 1)
        host.pop(unit, None)
        host[unit] = None
        if len(host) > self._host_units:
            oldest = next(iter(host))
            del host[oldest]
            if self.watch is not None:
                self.watch((oldest,), -1)

    @property
    def idle_blocks(self) -> int:
        """Blocks of resident units that nobody uses."""
        return len(self._idle) * self.blocks_a_unit

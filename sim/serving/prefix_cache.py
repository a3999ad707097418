"""Prefix caching: prompts that begin alike share KV blocks, and what nobody uses stays until its room is needed.

A prompt names its prefix by hashes, one for each full *unit* of tokens (a KV block, or several); a hash stands for the
unit and all before it. Units in use are counted once however many sequences read them; idle ones are evicted in the
order in which they fell idle, the deepest unit of a prompt first.
"""

from __future__ import annotations

from sim.errors import InputError
from sim.serving.sequence import Sequence


class PrefixCache:
    """The shared units of one replica.

    Args:
        block_size: tokens a KV block.
        unit: tokens a hash stands for, a multiple of `block_size`.

    Attributes:
        saved: blocks that sequences need together less than each for itself.
    """

    __slots__ = ("_idle", "_users", "blocks_a_unit", "saved", "unit")

    def __init__(self, block_size: int, unit: int) -> None:
        if unit < 1 or unit % block_size:
            raise InputError("workload prefix unit", unit, f"a multiple of engine.block_size ({block_size}) tokens")
        self.unit, self.blocks_a_unit = unit, unit // block_size
        self._users: dict[int, int] = {}  # resident units, and how many sequences use each
        self._idle: dict[int, None] = {}  # resident and unused, longest idle first
        self.saved = 0

    def hits(self, seq: Sequence) -> list[int]:
        """The leading units of a prompt that are resident; the prompt's last token is never among what they hold."""
        found = []
        hashes = seq.request.hashes or ()
        for unit in hashes[: (seq.request.prompt - 1) // self.unit]:
            if unit not in self._users:
                break
            found.append(unit)
        return found

    def shared_blocks(self, hits: list[int]) -> int:
        """Blocks of these units that somebody uses already, so that one more user takes no room."""
        return self.blocks_a_unit * sum(self._users[unit] > 0 for unit in hits)

    def acquire(self, seq: Sequence, hits: list[int]) -> None:
        """Let a sequence use resident units; its prefill starts behind them."""
        for unit in hits:
            if self._users[unit]:
                self.saved += self.blocks_a_unit
            else:
                del self._idle[unit]
            self._users[unit] += 1
        seq.units = hits
        seq.done = max(seq.request.cached, len(hits) * self.unit)

    def register(self, seq: Sequence, tokens: int) -> None:
        """The first `tokens` tokens of a sequence have been computed: the units they fill become resident, but for
        those that others computed meanwhile."""
        hashes = seq.request.hashes or ()
        for unit in hashes[len(seq.units) : tokens // self.unit]:
            if unit not in self._users:
                self._users[unit] = 1
                seq.units.append(unit)

    def release(self, seq: Sequence) -> None:
        """A sequence ends or is preempted."""
        for unit in reversed(seq.units):
            self._users[unit] -= 1
            if self._users[unit]:
                self.saved -= self.blocks_a_unit
            else:
                self._idle[unit] = None
        seq.units = []

    def evict(self, free_blocks: int) -> None:
        """Drop idle units until the rest fits into `free_blocks` blocks."""
        most = max(0, free_blocks) // self.blocks_a_unit
        for unit in list(self._idle)[: max(0, len(self._idle) - most)]:
            del self._idle[unit], self._users[unit]

    @property
    def idle_blocks(self) -> int:
        """Blocks of resident units that nobody uses."""
        return len(self._idle) * self.blocks_a_unit

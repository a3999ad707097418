"""Fine-tuned adapters (LoRA) in the memory of a replica: a few slots, the longest unused one makes room."""

from __future__ import annotations

from sim.serving.prefix_cache import Watch


class AdapterSlots:
    """Adapters that are loaded, and how many running sequences use each.

    Args:
        slots: adapters that can be loaded at once.
    """

    __slots__ = ("_idle", "_slots", "_users", "loads", "watch")

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._users: dict[int, int] = {}  # loaded adapters in use
        self._idle: dict[int, None] = {}  # loaded and unused, longest idle first
        self.loads = 0
        self.watch: Watch | None = None

    def held(self) -> list[int]:
        """All adapters that are loaded."""
        return [*self._users, *self._idle]

    def has_room(self, adapter: int) -> bool:
        """Whether a sequence that needs `adapter` (0: the base model) can run now."""
        return not adapter or adapter in self._users or adapter in self._idle or len(self._users) < self._slots

    def acquire(self, adapter: int) -> bool:
        """One more sequence uses `adapter`. Returns whether it has to be loaded first."""
        if not adapter:
            return False
        if adapter in self._users:
            self._users[adapter] += 1
            return False
        self._users[adapter] = 1
        if adapter in self._idle:
            del self._idle[adapter]
            return False
        if len(self._users) + len(self._idle) > self._slots:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            if self.watch is not None:
                self.watch((oldest,), -1)
        if self.watch is not None:
            self.watch((adapter,), 1)
        self.loads += 1
        return True

    def release(self, adapter: int) -> None:
        """A sequence that used `adapter` ends or is preempted."""
        if adapter:
            self._users[adapter] -= 1
            if not self._users[adapter]:
                del self._users[adapter]
                self._idle[adapter] = None

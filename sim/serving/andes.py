"""QoE-aware scheduling with preemption: now and then, seats and memory go to those whose reading would suffer most.

Every quantum in which somebody waits, each request's *gain* is how much of the text that its user expects by the end of
the next quantum would be missing if it were not served until then. Requests are taken in order of gain per KV block for
as long as seats and memory last; the others are preempted, at most so often each. Source: Andes (arXiv 2404.16283),
section 4: a greedy knapsack over QoE gains. Its prediction of decode speed is left out: who is served is taken to
keep up with its reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

from sim.serving.queues import TOLERANCE_S, Running
from sim.serving.sequence import Sequence

if TYPE_CHECKING:
    from sim.serving.scheduler import Scheduler


_DIGITS = 9  #: of a gain, so that rounding does not decide between equals


def gain(age_s: float, delivered: int, expected_s: float, speed: float, horizon_s: float) -> float:
    """Share of the area under the expected text that is lost if nothing comes for `horizon_s`, in [0, 1].

    Args:
        age_s: time since the request came [s].
        delivered: tokens that its user has.
        expected_s: time after which text is expected [s]; speed: at which it is read [tokens/s].
    """
    reading_s = age_s + horizon_s - expected_s
    if reading_s <= TOLERANCE_S:
        return 0.0
    ahead_s = delivered / speed - max(0.0, age_s - expected_s)  # what is buffered lasts so long
    idle_s = horizon_s - max(0.0, expected_s - age_s) - max(0.0, ahead_s)
    return round((max(0.0, idle_s) / reading_s) ** 2, _DIGITS)


class Andes:
    """The queue: by the last decision, and who came since behind them, first come first served."""

    dynamic = True

    def __init__(self) -> None:
        self._heap: list[tuple[Any, ...]] = []
        self._rank = 0  # of who comes: behind all that were ranked

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Sequence]:
        yield from (entry[-1] for entry in self._heap)

    def push(self, seq: Sequence) -> None:
        """See `Queue.push`."""
        heappush(self._heap, (self._rank, seq.queued_s, seq.request.id, seq))

    def leads(self, seq: Sequence) -> bool:
        """See `Queue.leads`."""
        return self._heap[0][-1] is seq

    def first(self, visible_s: float) -> Sequence | None:
        """See `Queue.first`: nobody overtakes one that may not be seen yet, since all behind came later."""
        seq: Sequence = self._heap[0][-1]
        return None if seq.queued_s > visible_s + TOLERANCE_S else seq

    def unseen(self, visible_s: float) -> bool:
        """See `Queue.unseen`."""
        return True

    def take(self) -> None:
        """See `Queue.take`."""
        heappop(self._heap)

    def put_back(self, seq: Sequence) -> None:
        """See `Queue.put_back`."""
        self.push(seq)

    def victim(self, running: Running) -> Sequence:
        """See `Queue.victim`."""
        return next(reversed(running))

    def remove(self, seq: Sequence) -> None:
        """See `Queue.remove`."""
        self._heap = [entry for entry in self._heap if entry[-1] is not seq]
        heapify(self._heap)

    def order(self, ranked: list[Sequence], visible_s: float) -> None:
        """Let those that wait and have been seen go in this order."""
        place = {seq: rank for rank, seq in enumerate(ranked)}
        self._rank = len(ranked)
        seen = visible_s + TOLERANCE_S
        self._heap = [
            (place[seq] if seq.queued_s <= seen else self._rank, seq.queued_s, seq.request.id, seq) for seq in self
        ]
        heapify(self._heap)


def take_turns(scheduler: Scheduler, t: float) -> None:
    """Decide at time `t` who is served during the next quantum, and preempt who is not."""
    options, queue, layout = scheduler.options, scheduler.waiting, scheduler.layout
    assert isinstance(queue, Andes)
    visible = t if not scheduler.running or not scheduler.async_scheduling else scheduler.visible_s
    seen = [seq for seq in queue if seq.queued_s <= visible + TOLERANCE_S]

    def rank(seq: Sequence) -> tuple[float, float, int]:
        expected_s, speed = options.expectations[seq.request.slo_class]
        delivered = seq.emitted + (scheduler.gained(seq, scheduler.j) if seq.decoding else 0)
        won = gain(t - seq.request.arrival_s, delivered, expected_s, speed, options.quantum_s)
        return -won / blocks(seq), seq.queued_s, seq.request.id

    def blocks(seq: Sequence) -> int:
        if seq.decoding:
            return layout.decoding(seq.offset + scheduler.j * scheduler.pace, scheduler.ahead, scheduler.parts)
        return layout.needs(seq.length, seq.done)

    bound = [seq for seq in scheduler.running if seq.preemptions >= options.most_preemptions]
    seats = scheduler.max_seqs - len(bound)
    room = scheduler.blocks - sum(map(blocks, bound))
    free = [seq for seq in scheduler.running if seq.preemptions < options.most_preemptions]
    ranked = sorted([*free, *seen], key=rank)
    chosen = set()
    for seq in ranked:
        need = blocks(seq)
        if seats > 0 and need <= room:
            chosen.add(seq)
            seats, room = seats - 1, room - need
    if any(seq in chosen for seq in seen):
        for seq in free:
            if seq not in chosen:
                scheduler.preempt(seq, t)
    waiting = [seq for seq in ranked if seq not in scheduler.running]
    queue.order(sorted(waiting, key=lambda seq: seq not in chosen), visible)
    scheduler.preempted = False  # who was chosen may join at once

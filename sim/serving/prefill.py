"""The prefill part of a step: how many (query, context) pairs its chunks attend to, and how long it repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sim.serving.sequence import Sequence

if TYPE_CHECKING:
    from sim.serving.scheduler import Scheduler


class PrefillWork(NamedTuple):
    """Prefill of `k` equal steps.

    Attributes:
        k: steps for which the chunks are equal and full.
        tokens: prompt tokens a step.
        pairs, growth: (query, context) pairs of the first step, and by how many they grow a step.
        pairs_w, growth_w: the same where a window cuts contexts off.
    """

    k: int
    tokens: int
    pairs: float
    growth: float
    pairs_w: float
    growth_w: float


def chunk_pairs(done: int, chunk: int, k: int, window: int) -> tuple[float, float]:
    """Pairs of `k` consecutive chunks of one prompt after `done` tokens: in full layers, and in windowed ones.

    A query at position p attends to p tokens, itself included. For k > 1 the chunks lie on one side of the window.
    """
    half = k * (k - 1) * 0.5
    pairs = k * chunk * (done + (chunk + 1) * 0.5) + chunk * chunk * half
    if not window:
        return pairs, 0.0
    if done + chunk * k <= window:
        return pairs, pairs
    if done >= window:
        return pairs, float(k * chunk * window)
    below = window - done
    return pairs, below * (done + (below + 1) * 0.5) + float((chunk - below) * window)


def prefill_work(scheduler: Scheduler, chunks: list[tuple[Sequence, int]]) -> PrefillWork:
    """The prefill of the coming step, and for how many steps it stays the same but for the prefix it reads.

    Only one prompt that fills the token budget by itself repeats: nothing else can be admitted meanwhile.
    """
    window = scheduler._window
    if len(chunks) > 1:
        tokens = 0
        pairs = pairs_w = 0.0
        for seq, chunk in chunks:
            tokens += chunk
            own, own_w = chunk_pairs(seq.done, chunk, 1, window)
            pairs += own
            pairs_w += own_w
        return PrefillWork(1, tokens, pairs, 0.0, pairs_w, 0.0)
    seq, chunk = chunks[0]
    done = seq.done
    pairs, pairs_w = chunk_pairs(done, chunk, 1, window)
    k = 1
    if not scheduler.left and not scheduler.preempted:
        k = max(1, (seq.length - done) // chunk)
        if window and done < window:
            k = min(k, max(1, (window - done) // chunk))
        if k > 1:
            k = _steps_in_memory(scheduler, done, chunk, k)
    growth = float(chunk * chunk)
    return PrefillWork(k, chunk, pairs, growth, pairs_w, 0.0 if done + chunk > window else growth)


def _steps_in_memory(scheduler: Scheduler, done: int, chunk: int, k: int) -> int:
    """How many of `k` equal steps fit in memory; the first one does."""
    block, growth, blocks = scheduler.block_size, scheduler.n * scheduler.pace, scheduler.room
    most = (scheduler.context + growth * (k - 1) + scheduler.n * scheduler._slack) // scheduler._grain
    if most + scheduler.layout.needs(done + chunk * k, done) <= blocks:
        return k
    if scheduler.groups is not None:
        return 1  # windows give blocks back meanwhile: step by step
    low, high = 1, k + 1
    while high - low > 1:
        steps = (low + high) // 2
        ahead = steps - 1
        used = scheduler.decode_blocks(scheduler.j + ahead, scheduler.context + growth * ahead)
        if used - (-(done + chunk * steps) // block) <= blocks:
            low = steps
        else:
            high = steps
    return low

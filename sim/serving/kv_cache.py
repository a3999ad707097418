"""KV blocks of a batch whose contexts all grow by one token a step, counted by residue instead of by sequence.

A decoding sequence that reads `offset + j` tokens in the step with counter j holds ceil((offset + j) / B) blocks in it.
Only `offset mod B` decides when it takes its next block, so B counters answer for the whole batch.
"""

from __future__ import annotations


def decode_blocks(residues: list[int], j: int, context: int) -> int:
    """Blocks that the decode set holds in the step with counter `j`.

    Args:
        residues: how many sequences have `offset mod B == i`, for i in 0..B-1.
        j: step counter.
        context: sum of the contexts read in that step [tokens].
    """
    block = len(residues)
    padding = 0
    for residue, count in enumerate(residues):
        if count:
            padding += count * (-(residue + j) % block)
    return (context + padding) // block


def steps_that_fit(residues: list[int], j: int, n: int, free: int) -> int:
    """How many steps from counter `j` on fit in memory, the step `j` itself included, with nothing finishing.

    Args:
        residues: as in `decode_blocks`.
        j: counter of the first step, whose blocks are already taken.
        n: sequences in the decode set, at least 1.
        free: blocks that are free after the step `j` took its own.
    """
    block = len(residues)
    ahead = block * (free // n)  # every B steps take exactly one block a sequence
    left = free % n
    while True:
        need = residues[-(j + ahead) % block]
        if need > left:
            return ahead + 1
        left -= need
        ahead += 1

"""KV blocks of a batch whose contexts all grow alike, counted by residue instead of by sequence.

A decoding sequence that needs room for `offset + at` tokens, where `at` grows by one a step, holds
ceil((offset + at) / B) blocks. Only `offset mod B` decides when it takes its next block, so B counters answer for the
whole batch. Where contexts grow by fractions of a token, all is in those fractions.
"""

from __future__ import annotations


def decode_blocks(residues: list[int], at: int, context: int) -> int:
    """Blocks that the decode set holds `at` tokens after its offsets.

    Args:
        residues: how many sequences have `offset mod B == i`, for i in 0..B-1.
        at: growth since the offsets.
        context: sum of offset + at [tokens].
    """
    block = len(residues)
    padding = 0
    for residue, count in enumerate(residues):
        if count:
            padding += count * (-(residue + at) % block)
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

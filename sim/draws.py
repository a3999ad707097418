"""Random numbers that are functions of seed, name and number: nobody draws them, so no order of events moves them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim.rng import Streams

FloatArray = npt.NDArray[np.float64]
UIntArray = npt.NDArray[np.uint64]

BLOCK = 1024  #: numbers that are computed together, so that one costs as little as in a table
MOST_BLOCKS = 256  #: kept at a time
_GOLDEN, _FIRST, _SECOND = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Normals:
    """Standard normal numbers by name and number.

    Source: the finalizer of SplitMix64 over a counter, Steele, Lea, Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014; Box and Muller, "A note on the generation of random normal deviates", 1958.

    Args:
        seed: root seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self._streams = Streams(seed)
        self._keys: dict[str, UIntArray] = {}
        self._blocks: dict[tuple[str, int], list[float]] = {}

    def one(self, name: str, number: int) -> float:
        """The number's value under a name."""
        block = self._blocks.get((name, number // BLOCK))
        if block is None:
            if len(self._blocks) >= MOST_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            block = self._blocks[name, number // BLOCK] = self._block(name, number // BLOCK).tolist()
        return block[number % BLOCK]

    def many(self, name: str, numbers: npt.NDArray[np.int64]) -> FloatArray:
        """The same of many numbers, bit by bit: computed in the same blocks."""
        table = np.concatenate([self._block(name, at) for at in range(int(numbers.max()) // BLOCK + 1)])
        values: FloatArray = table[numbers]
        return values

    def _block(self, name: str, at: int) -> FloatArray:
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = self._streams.key(name)
        counter = np.arange(at * BLOCK, (at + 1) * BLOCK, dtype=np.uint64)
        radius, angle = _uniform(counter * _GOLDEN + key[0]), _uniform(counter * _GOLDEN + key[1])
        values: FloatArray = np.sqrt(-2.0 * np.log(radius)) * np.cos(2.0 * np.pi * angle)
        return values


def _uniform(state: UIntArray) -> FloatArray:
    """Evenly spread in (0, 1): never its ends."""
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    state = state ^ (state >> np.uint64(31))
    uniform: FloatArray = ((state >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return uniform

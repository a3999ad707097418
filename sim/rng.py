"""One named random stream per subsystem, so that adding a router never moves an arrival."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt


class Streams:
    """Independent generators derived from one seed and a stream's name.

    The same (seed, name) pair gives the same stream in every process and on every machine: the name enters
    the spawn key of a `numpy.random.SeedSequence` by its CRC-32, never by Python's salted `hash`.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def get(self, name: str) -> np.random.Generator:
        """Return a fresh generator for the stream `name`, at its beginning."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(name.encode()),))
        return np.random.Generator(np.random.PCG64(sequence))

    def key(self, name: str) -> npt.NDArray[np.uint64]:
        """Two words that stand for the stream `name`, for whoever computes its numbers by itself."""
        sequence = np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(name.encode()),))
        return sequence.generate_state(2, np.uint64).astype(np.uint64)

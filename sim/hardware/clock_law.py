"""How an xPU's speed and power follow its clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.errors import InputError, number
from sim.hardware.xpu import XPU

BITS_PER_BYTE = 8.0


@dataclass(frozen=True, slots=True)
class ClockLaw:
    """Voltage and clock go together: power of the core domain at full use ~ clock^exponent.

    So what an operation takes ~ clock^(exponent - 1). Memory devices have a clock of their own, which stays.

    Attributes:
        exponent: of the clock, at least 1.
        lowest: lowest clock, as a share of the highest, in (0, 1].
        memory_j_per_byte: energy of the memory devices alone, by type of memory [J/byte].
    """

    exponent: float
    lowest: float
    memory_j_per_byte: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        number("clock_law.exponent", self.exponent, "a number > 1 and at most 4", above=1.0, high=4.0)
        number("clock_law.lowest", self.lowest, "a share of the clock in (0, 1]", above=0.0, high=1.0)
        for name, joules in self.memory_j_per_byte.items():
            number(f"clock_law.memory_j_per_byte.{name}", joules, "an energy >= 0 J/byte", low=0.0)

    def memory_w(self, xpu: XPU) -> float:
        """Power of an xPU's memory devices at peak bandwidth [W]: the part of `memory_w` that clocks do not lower.

        Raises:
            InputError: nothing is known of that type of memory.
        """
        try:
            joules = self.memory_j_per_byte[str(xpu.memory_type)]
        except KeyError:
            known = " | ".join(self.memory_j_per_byte)
            raise InputError(
                f"memory_type of {xpu.id}", xpu.memory_type, f"one that the clock law has: {known}"
            ) from None
        return min(joules * xpu.bandwidth_bytes_per_s, xpu.power.memory_w)

"""A power purchase agreement: the output of a plant elsewhere, matched with what a site takes from the grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.accounting.signal import Signal
from sim.errors import InputError, number, provider
from sim.units import SECONDS_PER_HOUR

FloatArray = npt.NDArray[np.float64]
HOURLY, ANNUAL = "hourly", "annual"
MATCHING = (HOURLY, ANNUAL)
GRID = "grid"  #: word for a residual mix that is the grid's average


@dataclass(frozen=True, slots=True)
class Ppa:
    """What a site has contracted, for its market-based carbon.

    Attributes:
        power: contracted output over time [kW].
        matching: ``hourly`` counts it in the hour in which it is generated alone, ``annual`` over the whole run.
        g_per_kwh: its intensity, on the run's basis [g/kWh].
        residual_g_per_kwh: of all other electricity: the residual mix [g/kWh]; ``grid`` for the grid's average, which
            the Scope 2 Guidance takes where no residual mix is published; None where unknown.

    Source: GHG Protocol, Scope 2 Guidance (2015), which matches by the year; by the hour as in its draft of 2025.
    """

    power: Signal
    matching: str = HOURLY
    g_per_kwh: float = 0.0
    residual_g_per_kwh: float | str | None = None

    def __post_init__(self) -> None:
        provider("ppa.power", self.power, ["at", "next_change", "integral"], "a Signal [kW]")
        if self.matching not in MATCHING:
            raise InputError("ppa.matching", self.matching, " | ".join(MATCHING))
        number("ppa.g_per_kwh", self.g_per_kwh, "an intensity >= 0 g/kWh", low=0.0)
        if self.residual_g_per_kwh not in (None, GRID):
            accepted = "an intensity >= 0 g/kWh, grid, or null where it is unknown"
            number("ppa.residual_g_per_kwh", self.residual_g_per_kwh, accepted, low=0.0)

    def residual(self, intensity: FloatArray) -> FloatArray | None:
        """Intensity of what no contract covers, in steps in which the grid has `intensity` [g/kWh]; None if unknown."""
        if self.residual_g_per_kwh is None:
            return None
        if self.residual_g_per_kwh == GRID:
            return intensity
        return np.full_like(intensity, float(self.residual_g_per_kwh))


def matched(imported: FloatArray, contracted: FloatArray, start_s: FloatArray, matching: str) -> FloatArray:
    """How much of the imports of every step the contract covers [kWh]: the same share of all in an hour, or of all.

    Args:
        imported, contracted: by step [kWh]; start_s: when the steps begin [s].
        matching: ``hourly``, by hours of simulated time, or ``annual``, over all steps.
    """
    hour = (start_s // SECONDS_PER_HOUR).astype(np.int64) if matching == HOURLY else np.zeros(len(start_s), np.int64)
    taken, given = (np.bincount(hour, weights=each) for each in (imported, contracted))
    share = np.divide(np.minimum(taken, given), taken, out=np.zeros_like(taken), where=taken > 0.0)
    covered: FloatArray = imported * share[hour]
    return covered

"""Water that a site takes: in its cooling, and at the power plants behind it."""

from __future__ import annotations

from dataclasses import dataclass

from sim.errors import number
from sim.units import JOULES_PER_KWH

_FACTOR = "a factor >= 0 l/kWh, or null where it is unknown"


@dataclass(frozen=True, slots=True)
class Water:
    """Water usage effectiveness: E_server x (on site + PUE x off site).

    Attributes:
        on_site_l_per_kwh: taken by cooling, per kWh of IT energy [l/kWh]; None where unknown.
        off_site_l_per_kwh: taken in generation, per kWh at the facility's meter [l/kWh]; None where unknown.
        source: where the numbers come from.

    Source: Li et al., Making AI Less Thirsty (arXiv 2304.03271).
    """

    on_site_l_per_kwh: float | None = None
    off_site_l_per_kwh: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("on_site_l_per_kwh", "off_site_l_per_kwh"):
            if getattr(self, name) is not None:
                number(f"water.{name}", getattr(self, name), _FACTOR, low=0.0)

    def litres(self, it_j: float, facility_j: float) -> tuple[float | None, float | None]:
        """Water on and off site for energy before and after PUE [l]; None where the factor is unknown."""
        factors = ((self.on_site_l_per_kwh, it_j), (self.off_site_l_per_kwh, facility_j))
        on, off = (None if factor is None else factor * joules / JOULES_PER_KWH for factor, joules in factors)
        return on, off

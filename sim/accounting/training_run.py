"""Energy and carbon of a training run from its xPU-hours, as the authors of published runs count them."""

from __future__ import annotations

from dataclasses import dataclass

from sim.errors import number
from sim.units import HOURS_PER_YEAR, JOULES_PER_KWH, SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True)
class RunFootprint:
    """What a run took.

    Attributes:
        xpu_hours: time of all xPUs [h].
        energy_kwh: of the run itself, at the facility [kWh].
        idle_kwh: of xPUs and servers that stood by for it [kWh]; None where not known.
        operational_g, idle_g, embodied_g: carbon of both energies and of making the hardware [g CO2e]; None: not known.
    """

    xpu_hours: float
    energy_kwh: float
    idle_kwh: float | None
    operational_g: float
    idle_g: float | None
    embodied_g: float | None

    @property
    def total_g(self) -> float | None:
        """Operational, idle and embodied carbon [g CO2e]; None where one of them is not known."""
        if self.idle_g is None or self.embodied_g is None:
            return None
        return self.operational_g + self.idle_g + self.embodied_g


def run_footprint(
    xpu_hours: float,
    power_w: float,
    pue: float,
    g_per_kwh: float,
    idle_kwh: float | None = None,
    embodied_g_per_xpu_hour: float | None = None,
) -> RunFootprint:
    """Energy is hours x watts x PUE, carbon that times the intensity of the grid.

    Args:
        xpu_hours: time of all xPUs [h].
        power_w: drawn by each [W].
        pue: power usage effectiveness of the building.
        g_per_kwh: carbon intensity [g CO2e/kWh].
        idle_kwh: energy of what stood by, at the facility [kWh]; None where not known.
        embodied_g_per_xpu_hour: making the hardware, over the hours of its life [g CO2e/h]; None where not known.

    Source: Strubell et al. (arXiv 1906.02243) and Patterson et al. (arXiv 2104.10350); idle and embodied as in Luccioni
    et al. (arXiv 2211.02001).
    """
    hours = number("xpu_hours", xpu_hours, "a time >= 0 h", low=0.0)
    watts = number("power_w", power_w, "a power >= 0 W", low=0.0)
    over = number("pue", pue, "a ratio of at least 1", low=1.0)
    intensity = number("intensity", g_per_kwh, "an intensity >= 0 g/kWh", low=0.0)
    kwh = hours * watts * over * SECONDS_PER_HOUR / JOULES_PER_KWH
    idle = None if idle_kwh is None else number("idle_kwh", idle_kwh, "an energy >= 0 kWh", low=0.0)
    embodied = None
    if embodied_g_per_xpu_hour is not None:
        embodied = hours * number("embodied", embodied_g_per_xpu_hour, "a mass >= 0 g CO2e/h", low=0.0)
    return RunFootprint(hours, kwh, idle, kwh * intensity, None if idle is None else idle * intensity, embodied)


def embodied_per_xpu_hour(
    xpu_kg: float, server_kg: float, xpus_per_server: float, lifetime_years: float, utilization: float
) -> float:
    """Carbon of making an xPU and its share of a server, over the hours in which it works [g CO2e/h].

    Source: Luccioni et al. (arXiv 2211.02001), section 4.1.
    """
    years = number("lifetime_years", lifetime_years, "a number of years > 0", above=0.0)
    share = number("utilization", utilization, "a share in (0, 1]", above=0.0, high=1.0)
    count = number("xpus_per_server", xpus_per_server, "a number > 0", above=0.0)
    return (xpu_kg + server_kg / count) * 1000.0 / (years * HOURS_PER_YEAR * share)

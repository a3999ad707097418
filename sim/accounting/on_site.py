"""What a site generates, stores and has contracted itself, and what came of it in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.accounting.battery import Battery
from sim.accounting.ppa import Ppa
from sim.accounting.signal import Signal
from sim.accounting.solar import Solar
from sim.errors import instance, number

STEP_S = 300.0  #: over which power is averaged before it is balanced, as meters of grids do [s]. Kind: assumed.


@dataclass(frozen=True, slots=True)
class OnSite:
    """Solar plant, battery and contract of a site, each None where there is none.

    Attributes:
        solar, battery, ppa: what there is.
        step_s: length of the steps in which power is balanced [s].
    """

    solar: Solar | None = None
    battery: Battery | None = None
    ppa: Ppa | None = None
    step_s: float = STEP_S

    def __post_init__(self) -> None:
        for name, kind in (("solar", Solar), ("battery", Battery), ("ppa", Ppa)):
            if getattr(self, name) is not None:
                instance(name, getattr(self, name), kind, f"a {kind.__name__}, or None where there is none")
        number("step_s", self.step_s, "a time of at least 1 s", low=1.0)

    def signals(self) -> tuple[Signal, ...]:
        """Signals that have to reach to the end of a run."""
        return tuple(each.power for each in (self.solar, self.ppa) if each is not None)


@dataclass(frozen=True, slots=True)
class SiteEnergy:
    """A site's energy over a run. In every step, load + charged + exported = used solar + discharged + imported.

    Attributes:
        name: of the site.
        kwh: sums by name [kWh].
        peak_kw: highest mean power of a step, of the load and of imports; and the least by which the load was below a
            power budget [kW].
        carbon_kg: operational carbon of the site's building, on the grid alone, and as it came out; of that the life
            cycle of solar; market-based, None where unknown; embodied carbon of the battery [kg CO2e].
        matched_share: of imports, by the contract hour by hour, and over the run; None without one.
        cost_usd: what the plant saved or cost, see `sim.accounting.settlement`; None where unknown.
        steps: columns by step, as in `STEP_COLUMNS`.
    """

    name: str
    kwh: Mapping[str, float]
    peak_kw: Mapping[str, float]
    carbon_kg: Mapping[str, float | None]
    matched_share: Mapping[str, float] | None
    cost_usd: float | None
    steps: Mapping[str, npt.NDArray[np.float64]]


#: columns of the steps: name -> (dtype, unit, meaning)
STEP_COLUMNS: dict[str, tuple[str, str, str]] = {
    "t_s": ("float64", "s", "start of the step"),
    "step_s": ("float64", "s", "length of the step (the last may be shorter)"),
    "load_kw": ("float64", "kW", "mean facility power of the site's pools"),
    "solar_kw": ("float64", "kW", "what the solar plant could deliver"),
    "battery_kw": ("float64", "kW", "from the battery into the site; below 0 it charges"),
    "import_kw": ("float64", "kW", "from the grid"),
    "export_kw": ("float64", "kW", "to the grid"),
    "curtailed_kw": ("float64", "kW", "solar power that was not used"),
    "stored_kwh": ("float64", "kWh", "content of the battery at the end of the step"),
    "intensity_g_per_kwh": ("float64", "g/kWh", "mean carbon intensity of the grid"),
    "budget_kw": ("float64", "kW", "mean of what the site may draw; missing without a budget"),
}

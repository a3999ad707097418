"""Carbon and cost inputs: grid intensity over time, embodied carbon of hardware, and prices. See docs/accounting.md."""

from sim.accounting.cost import CostModel, CostRates, Owned, Rent
from sim.accounting.embodied import Embodied, act, act_of, published
from sim.accounting.grid import HourlySignal, Market, preset
from sim.accounting.pue import ClockPue, LoadPue, measured_pue, weather_pue
from sim.accounting.signal import Constant, Signal
from sim.accounting.tariff import ClockTariff, market_tariff

__all__ = [
    "ClockPue",
    "ClockTariff",
    "Constant",
    "CostModel",
    "CostRates",
    "Embodied",
    "HourlySignal",
    "LoadPue",
    "Market",
    "Owned",
    "Rent",
    "Signal",
    "act",
    "act_of",
    "market_tariff",
    "measured_pue",
    "preset",
    "published",
    "weather_pue",
]

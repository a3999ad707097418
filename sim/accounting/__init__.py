"""Carbon and cost inputs: grid intensity over time, embodied carbon of hardware, and prices. See docs/accounting.md."""

from sim.accounting.cost import CostModel, CostRates, Owned, Rent
from sim.accounting.embodied import Embodied, act, act_of, published
from sim.accounting.grid import HourlySignal, Market, preset
from sim.accounting.signal import Constant, Signal

__all__ = [
    "Constant",
    "CostModel",
    "CostRates",
    "Embodied",
    "HourlySignal",
    "Market",
    "Owned",
    "Rent",
    "Signal",
    "act",
    "act_of",
    "preset",
    "published",
]

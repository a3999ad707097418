"""The model of hybridfleet: LLM serving fleets of device, edge and cloud, in discrete events.

Open these three first:
    sim/simulation.py       `run`: the main loop
    sim/serving/engine.py   one replica: what a step holds, how long it takes, how the engine jumps over equal steps
    sim/accounting/ledger.py  from shares of time and energy to joules, grams and dollars

A fleet in a few lines::

    from sim import Fleet, LeastOutstanding, Pool, Site, SyntheticWorkload, catalogue, run
"""

from sim.accounting.cost import Owned, Rent
from sim.accounting.embodied import Embodied, act, act_of, published
from sim.accounting.signal import Constant, Signal
from sim.errors import InputError
from sim.fleet.spec import EngineSettings, Fleet, Host, Link, Pool, Site
from sim.hardware.model import Model
from sim.hardware.xpu import XPU
from sim.qoe import SLOClass
from sim.request import Request
from sim.results import Result
from sim.simulation import Progress, run

__all__ = [
    "XPU",
    "Constant",
    "Embodied",
    "EngineSettings",
    "Fleet",
    "Host",
    "InputError",
    "Link",
    "Model",
    "Owned",
    "Pool",
    "Progress",
    "Rent",
    "Request",
    "Result",
    "SLOClass",
    "Signal",
    "Site",
    "act",
    "act_of",
    "published",
    "run",
]

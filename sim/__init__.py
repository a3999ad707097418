"""The model of hybridfleet: LLM serving fleets of device, edge and cloud, in discrete events.

Open these three first:
    sim/simulation.py       `run`: the main loop
    sim/serving/engine.py   one replica: what a step holds, how long it takes, how the engine jumps over equal steps
    sim/accounting/ledger.py  from shares of time and energy to joules, grams and dollars

A fleet in a few lines::

    from sim import Constant, Fleet, Pool, Rent, Site, act_of, catalogue, run
    from sim.routing import LeastOutstanding
    from sim.workload import Fixed, Poisson, SyntheticWorkload

    h100 = catalogue.xpu("h100_sxm")
    pool = Pool("h100", catalogue.model("llama_3_1_8b"), h100, replicas=2, cost=Rent(2.69), embodied=act_of(h100))
    workload = SyntheticWorkload(Poisson(8.0), Fixed(prompt=1000, output=200), limit=1000)
    result = run(Fleet([Site("cloud", "cloud", [pool], Constant(400.0))]), workload, LeastOutstanding(), seed=1)
    print(result.requests["ttft_s"].mean(), result.pools[0].cost_usd)
"""

from sim.accounting.cost import Owned, Rent
from sim.accounting.embodied import Embodied, act, act_of, published
from sim.accounting.signal import Constant, Signal
from sim.errors import InputError
from sim.fleet.engine_settings import EngineSettings
from sim.fleet.link import Link
from sim.fleet.spec import Fleet, Host, Pool, Site
from sim.hardware import catalogue
from sim.hardware.model import Model
from sim.hardware.xpu import XPU
from sim.qoe import SLOClass
from sim.quality import QualityModel
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
    "QualityModel",
    "Rent",
    "Request",
    "Result",
    "SLOClass",
    "Signal",
    "Site",
    "act",
    "act_of",
    "catalogue",
    "published",
    "run",
]

"""Where requests come from: arrival processes with length models, conversations, or traces. See docs/workloads.md."""

from sim.workload.arrivals import ArrivalProcess, ConstantRate, Gamma, OnOff, Poisson, Weibull
from sim.workload.base import RequestBatch, Workload
from sim.workload.closed import ClosedSessionWorkload
from sim.workload.curves import Diurnal, TimeVarying
from sim.workload.labelled import LabelledTrace
from sim.workload.lengths import (
    Copula,
    EmpiricalQuantiles,
    Fixed,
    FixedLength,
    Independent,
    LengthModel,
    LogNormal,
    Marginal,
)
from sim.workload.servegen import ServeGenWorkload
from sim.workload.sessions import SessionWorkload
from sim.workload.shared_prefix import SharedPrefix
from sim.workload.synthetic import SyntheticWorkload
from sim.workload.traces import TraceWorkload

__all__ = [
    "ArrivalProcess",
    "ClosedSessionWorkload",
    "ConstantRate",
    "Copula",
    "Diurnal",
    "EmpiricalQuantiles",
    "Fixed",
    "FixedLength",
    "Gamma",
    "Independent",
    "LabelledTrace",
    "LengthModel",
    "LogNormal",
    "Marginal",
    "OnOff",
    "Poisson",
    "RequestBatch",
    "ServeGenWorkload",
    "SessionWorkload",
    "SharedPrefix",
    "SyntheticWorkload",
    "TimeVarying",
    "TraceWorkload",
    "Weibull",
    "Workload",
]

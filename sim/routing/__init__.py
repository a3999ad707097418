"""Routers: each sends a request to one pool of the fleet. `base.py` has the protocol, docs/policies.md a table."""

from sim.routing.affinity import AdapterAffinity, PrefixAffinity
from sim.routing.bandit import Bandit
from sim.routing.base import FleetView, Outcome, PoolView, Router
from sim.routing.combined import PrivacyPin, Stale
from sim.routing.hybrid import LengthThreshold, Spillover
from sim.routing.latency import MinPredictedLatency
from sim.routing.load import LeastOutstanding, LeastTokens, PowerOfTwo
from sim.routing.quality import QualityOracle, QualityThreshold, RandomSplit
from sim.routing.scores import QoEAware, Weighted
from sim.routing.slo import CarbonSLO, MinCostSLO, OldXPUOffload
from sim.routing.static import CloudOnly, DeviceOnly, EdgeOnly, Random, RoundRobin

__all__ = [
    "AdapterAffinity",
    "Bandit",
    "CarbonSLO",
    "CloudOnly",
    "DeviceOnly",
    "EdgeOnly",
    "FleetView",
    "LeastOutstanding",
    "LeastTokens",
    "LengthThreshold",
    "MinCostSLO",
    "MinPredictedLatency",
    "OldXPUOffload",
    "Outcome",
    "PoolView",
    "PowerOfTwo",
    "PrefixAffinity",
    "PrivacyPin",
    "QoEAware",
    "QualityOracle",
    "QualityThreshold",
    "Random",
    "RandomSplit",
    "RoundRobin",
    "Router",
    "Spillover",
    "Stale",
    "Weighted",
]

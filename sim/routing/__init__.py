"""Routers send a request to one pool of the fleet; policies lead it through several steps.

`base.py` has both protocols, docs/policies.md a table.
"""

from sim.routing.affinity import AdapterAffinity, PrefixAffinity
from sim.routing.bandit import Bandit
from sim.routing.base import FleetView, Outcome, Policy, PoolView, Router
from sim.routing.cascade import Cascade, EdgeAnswerCloudValidate
from sim.routing.clean import CarbonBrevity, TemporalShift
from sim.routing.combined import PrivacyPin, Stale
from sim.routing.handoff import PrefillDecodeSplit, TokenMigration
from sim.routing.hybrid import LengthThreshold, Spillover
from sim.routing.latency import MinPredictedLatency
from sim.routing.layers import LayerSplit
from sim.routing.load import LeastOutstanding, LeastTokens, PowerOfTwo
from sim.routing.patience import Timeout
from sim.routing.quality import QualityOracle, QualityThreshold, RandomSplit
from sim.routing.race import HedgedRace
from sim.routing.rag import FineTuned, LongContext, Rag
from sim.routing.scores import QoEAware, QoEPreemptive, Weighted
from sim.routing.slo import CarbonSLO, MinCostSLO, OldXPUOffload
from sim.routing.speculative import SpeculativeEdgeDraft
from sim.routing.static import CloudOnly, DeviceOnly, EdgeOnly, Random, RoundRobin

__all__ = [
    "AdapterAffinity",
    "Bandit",
    "CarbonBrevity",
    "CarbonSLO",
    "Cascade",
    "CloudOnly",
    "DeviceOnly",
    "EdgeAnswerCloudValidate",
    "EdgeOnly",
    "FineTuned",
    "FleetView",
    "HedgedRace",
    "LayerSplit",
    "LeastOutstanding",
    "LeastTokens",
    "LengthThreshold",
    "LongContext",
    "MinCostSLO",
    "MinPredictedLatency",
    "OldXPUOffload",
    "Outcome",
    "Policy",
    "PoolView",
    "PowerOfTwo",
    "PrefillDecodeSplit",
    "PrefixAffinity",
    "PrivacyPin",
    "QoEAware",
    "QoEPreemptive",
    "QualityOracle",
    "QualityThreshold",
    "Rag",
    "Random",
    "RandomSplit",
    "RoundRobin",
    "Router",
    "SpeculativeEdgeDraft",
    "Spillover",
    "Stale",
    "TemporalShift",
    "Timeout",
    "TokenMigration",
    "Weighted",
]

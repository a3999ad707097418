"""The tables a run returns: their columns, units and meaning, and `Result` that holds them.

Times are client-side and in seconds since the start of the run. Energy is at the facility (after PUE) unless a name
says `it_`. NaN means "does not apply" or "unknown", never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sim.qoe import SLOClass

if TYPE_CHECKING:
    from sim.accounting.on_site import SiteEnergy

Columns = dict[str, npt.NDArray[Any]]

STATUSES = ("completed", "rejected", "timed_out", "failed", "cancelled", "in_flight")

#: columns of requests that have no meaning for a leg
JOURNEY_COLUMNS = ("legs", "escalations", "tokens_wasted", "quality", "context_tokens", "retrieval_s")

#: requests: one row a request, in order of arrival. name -> (dtype, unit, meaning)
REQUEST_COLUMNS: dict[str, tuple[str, str, str]] = {
    "request_id": ("int64", "", "running number in order of arrival"),
    "arrival_s": ("float64", "s", "when the client sent it"),
    "status": ("int8", "code", "index into STATUSES"),
    "slo_class": ("int16", "code", "index into Result.slo_classes"),
    "pool": ("int16", "code", "index into Result.pools; -1 if none"),
    "replica": ("int32", "", "replica in its pool; -1 if none"),
    "counted": ("bool", "", "arrived within [warmup_s, horizon_s): enters the user-facing metrics"),
    "tenant": ("int32", "", "who sent it, from 0"),
    "prompt_tokens": ("int64", "tokens", "prompt length"),
    "context_tokens": ("int64", "tokens", "what a policy put in front of the prompt, such as documents that it found"),
    "cached_tokens": ("int64", "tokens", "prompt tokens found in a prefix cache when it was first admitted"),
    "output_tokens": ("int64", "tokens", "output tokens delivered"),
    "reasoning_tokens": ("int64", "tokens", "output tokens that came first and that the user does not see"),
    "ttft_s": ("float64", "s", "time to first token"),
    "ttfv_s": ("float64", "s", "time to first visible token: behind the hidden ones; ttft_s where there are none"),
    "first_audio_s": ("float64", "s", "time to the first sound of a spoken answer; NaN if it is not spoken"),
    "tpot_s": ("float64", "s", "time per output token after the first; NaN with one output token"),
    "e2e_s": ("float64", "s", "time to last token"),
    "uplink_s": ("float64", "s", "client to engine: network and front end"),
    "retrieval_s": ("float64", "s", "the part of uplink_s in which a policy found its documents"),
    "queue_s": ("float64", "s", "in the replica's queue until first scheduled"),
    "prefill_s": ("float64", "s", "first scheduled until first token"),
    "decode_s": ("float64", "s", "first token until last token, at the engine"),
    "downlink_s": ("float64", "s", "engine to client, of the last token: detokenizer and network"),
    "itl_max_s": ("float64", "s", "longest gap between two tokens; NaN with one output token"),
    "preemptions": ("int32", "", "times it lost its KV cache and was recomputed"),
    "token_qoe": ("float64", "", "token-timeline QoE in [0, 1] (Andes v1); 0 if not completed"),
    "token_qoe_v2": ("float64", "", "token-timeline QoE in [0, 1] (Andes v2); 0 if not completed"),
    "quality": ("float64", "", "whether the answer is correct: 1 or 0; NaN where unknown, or not completed"),
    "deadline_s": ("float64", "s", "when its last token was due, after its arrival; NaN for no deadline"),
    "slo_met": ("bool", "", "completed within every bound of its class, and its deadline"),
    "legs": ("int32", "", "services by pools that it took; 1 where a router only chooses"),
    "escalations": ("int32", "", "times a policy gave it to a stronger model"),
    "tokens_wasted": ("int64", "tokens", "output tokens that a policy had computed and no answer holds"),
    "xpu_s": ("float64", "xPU s", "its share of active xPU time"),
    "energy_j": ("float64", "J", "its share of active energy at the facility: xPU + host, after PUE, without waste"),
    "energy_prefill_j": ("float64", "J", "the part of energy_j spent in (its last) prefill"),
    "energy_wasted_j": ("float64", "J", "prefill lost to preemption, or all of it where it did not complete"),
    "energy_network_j": ("float64", "J", "network energy where known, else 0 and the run is marked incomplete"),
    "energy_provisioned_j": ("float64", "J", "energy_j plus its part of idle energy by active xPU seconds"),
    "carbon_operational_g": ("float64", "g CO2e", "operational carbon of energy_j and energy_wasted_j"),
    "carbon_operational_provisioned_g": ("float64", "g CO2e", "the same with its part of idle and boot"),
    "carbon_embodied_g": ("float64", "g CO2e", "embodied carbon by active xPU time; NaN where unknown"),
    "carbon_embodied_provisioned_g": ("float64", "g CO2e", "embodied carbon with its part of idle time"),
    "cost_usd": ("float64", "USD", "cost by active xPU time and energy; NaN where unknown"),
    "cost_prefill_usd": ("float64", "USD", "the part of cost_usd that computing prompts took, lost work included"),
    "cost_provisioned_usd": ("float64", "USD", "cost with its part of idle time"),
}

#: legs: one row a service by a pool, where a policy may use several for a request; the columns of a request hold for
#: the leg alone, from the client's arrival on, and these:
LEG_COLUMNS: dict[str, tuple[str, str, str]] = {
    "leg_id": ("int64", "", "running number in order of their beginning"),
    "role": ("object", "", "answer, or what else it was for"),
    "useful": ("bool", "", "its work, or part of it, went into the answer; the rest is energy_wasted_j"),
    **{name: column for name, column in REQUEST_COLUMNS.items() if name not in JOURNEY_COLUMNS},
}

#: timeline: one row a pool and time bin
TIMELINE_COLUMNS: dict[str, tuple[str, str, str]] = {
    "pool": ("int16", "code", "index into Result.pools"),
    "t_s": ("float64", "s", "start of the bin"),
    "bin_s": ("float64", "s", "length of the bin (the last may be shorter)"),
    "power_w": ("float64", "W", "mean facility power"),
    "energy_j": ("float64", "J", "facility energy in the bin"),
    "intensity_g_per_kwh": ("float64", "g/kWh", "mean carbon intensity of the site"),
    "carbon_g": ("float64", "g CO2e", "operational carbon in the bin"),
    "queue": ("float64", "requests", "mean number waiting"),
    "running": ("float64", "requests", "mean number in a batch"),
    "kv_use": ("float64", "", "mean share of KV cache in use"),
    "replicas": ("float64", "", "replicas provisioned"),
    "arrivals": ("int64", "requests", "requests that arrived at clients and were sent to this pool"),
    "output_tokens": ("float64", "tokens", "tokens produced"),
}

#: spans: one row a span of equal steps of one replica (optional)
SPAN_COLUMNS: dict[str, tuple[str, str, str]] = {
    "pool": ("int16", "code", "index into Result.pools"),
    "replica": ("int32", "", "replica in its pool"),
    "t0_s": ("float64", "s", "start of the first step"),
    "steps": ("int64", "steps", "steps k in the span"),
    "a_s": ("float64", "s", "duration of the first step"),
    "b_s": ("float64", "s", "growth of the duration a step"),
    "decoding": ("int64", "sequences", "sequences that emit a token every step"),
    "prefill_tokens": ("int64", "tokens", "prompt tokens a step"),
    "context_tokens": ("int64", "tokens", "sum of decode contexts in the first step"),
    "dyn_j": ("float64", "J", "dynamic xPU energy of the whole span, IT side"),
}


@dataclass(slots=True)
class PoolTotals:
    """What one pool drew, emitted and cost over the whole run. `parts` are exhaustive: they sum to the totals.

    Attributes:
        name, site, site_kind, model, xpu: identity.
        replicas, xpus: provisioned replicas, and xPUs in all.
        kv_blocks: usable KV blocks a replica, or rank; block_size in tokens; kv_groups: blocks that as many tokens
            take, one for each group of layers.
        provisioned_s: xPU seconds provisioned; billed_s: xPU seconds paid for, 0 where cost is unknown.
        busy_s, idle_s, boot_s: seconds of replicas, or ranks, by state.
        dummy_s, waited_s: of the busy seconds of data-parallel ranks, those in dummy steps, and those in others in
            which they waited for a slower rank.
        it_energy_j: IT energy by part: active (completed work), wasted, idle, boot (xPU and host, before PUE).
        network_energy_j: energy of its client link.
        facility_energy_j: the same parts after PUE.
        carbon_operational_g, carbon_embodied_g, cost_usd: by the same parts (active, wasted, idle, boot, network)
            and, where the site has a plant of its own, `on_site` (`sim.accounting.settlement`).
        useful_flop: FLOP that its completed answers took; peak_flop_per_s: of one xPU in 16 bit.
        weight_bytes, kv_bytes: weights and KV cache of all replicas [bytes].
        water_on_l, water_off_l: water taken on and off site [l], or None where unknown.
        embodied_kg: low, central, high over the run, or None where unknown.
        bytes_up, bytes_down: client traffic [bytes].
        intensity_mean: mean carbon intensity over the run [g/kWh]; intensity_basis (lca, direct), intensity_kind
            (average, marginal) and intensity_source name it.
        intensity_by_basis: means on every basis that the grid's entry has [g/kWh].
        ownership: ``owned``, ``rented`` or ``bought`` by the token, empty where unknown.
        provider: whose API it is; empty for hardware of one's own or rented, which has `replicas` and an `xpu`.
        embodied_full_kg: embodied carbon of all its hardware, not spread over time [kg CO2e]; None where unknown.
        carbon_market_g: market-based operational carbon [g CO2e], or None where the site's purchases are not known.
        incomplete: what is unknown and thus missing in the totals, in words.
        steps: engine steps; output_tokens: tokens emitted; preemptions; loaded_tokens: of prefixes, from the host.
        quality: scores by benchmark of its model as served; grounding: how timing, power and model are known.
    """

    name: str
    site: str
    site_kind: str
    model: str
    xpu: str
    replicas: int
    xpus: int
    kv_blocks: int
    block_size: int
    kv_groups: int
    pue: float
    provisioned_s: float = 0.0
    billed_s: float = 0.0
    busy_s: float = 0.0
    idle_s: float = 0.0
    boot_s: float = 0.0
    it_energy_j: dict[str, float] = field(default_factory=dict)
    facility_energy_j: dict[str, float] = field(default_factory=dict)
    carbon_operational_g: dict[str, float] = field(default_factory=dict)
    carbon_embodied_g: dict[str, float] | None = None
    carbon_embodied_range_g: tuple[float, float, float] | None = None
    cost_usd: dict[str, float] | None = None
    bytes_up: float = 0.0
    bytes_down: float = 0.0
    intensity_mean: float = 0.0
    intensity_basis: str = ""
    intensity_source: str = ""
    intensity_kind: str = ""
    intensity_by_basis: Mapping[str, float] = field(default_factory=dict)
    ownership: str = ""
    embodied_full_kg: float | None = None
    carbon_market_g: float | None = None
    useful_flop: float | None = None
    peak_flop_per_s: float | None = None
    provider: str = ""
    weight_bytes: float = 0.0
    kv_bytes: float = 0.0
    water_on_l: float | None = None
    water_off_l: float | None = None
    embodied_boundary: str = ""
    cost_basis: str = ""
    incomplete: tuple[str, ...] = ()
    steps: int = 0
    output_tokens: int = 0
    preemptions: int = 0
    loaded_tokens: int = 0
    dummy_s: float = 0.0
    waited_s: float = 0.0
    quality: Mapping[str, float] = field(default_factory=dict)
    grounding: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class LinkTotals:
    """What one link carried over the whole run.

    Attributes:
        name, source, target: identity; `source` is ``client`` or a site.
        bytes_up, bytes_down: from source to target, and back [bytes].
        energy_j, carbon_g: of these bytes, or None where the energy of a byte is unknown [J], [g CO2e].
        intensity_mean: mean carbon intensity of its electricity over the run [g/kWh].
        down_s: how long it was out of service [s].
    """

    name: str
    source: str
    target: str
    bytes_up: float
    bytes_down: float
    energy_j: float | None
    carbon_g: float | None
    intensity_mean: float
    down_s: float = 0.0


@dataclass(slots=True)
class GapSample:
    """Inter-token gaps of one (pool, SLO class) as (value [s], how many) pairs, sorted by value.

    Exact up to about a million distinct gaps; beyond that they are folded into bins 0.05 % wide, by mean value.
    """

    value_s: npt.NDArray[np.float64]
    count: npt.NDArray[np.int64]


@dataclass(slots=True)
class Result:
    """All that one run returns.

    Attributes:
        requests, timeline: columns as in REQUEST_COLUMNS and TIMELINE_COLUMNS; spans: SPAN_COLUMNS or None.
        legs: columns as in LEG_COLUMNS, of a policy that may use several for a request; else None.
        pools: totals by pool; the codes in the `pool` columns index this list.
        links: totals by link.
        sites: energy balance of each site with a solar plant, a battery or a contract.
        slo_classes: the codes in `slo_class` index this tuple.
        gaps: inter-token gaps by (pool index, SLO class index), of counted requests' pools (all requests).
        end_s: end of accounting: when the last request drained, or the horizon, whichever is later [s].
        warmup_s, horizon_s: which arrivals count; horizon_s is infinite where the workload ends by itself.
        observed_s: from warmup_s to the horizon or, without one, to the end of the run [s]; the denominator of goodput,
            as in vLLM's and AIPerf's benchmarks.
        seed: root seed.
        task: benchmark that `quality` of the requests is about, ``labels`` where a workload brought its own, or None.
        sessions: conversations of a closed workload by how they ended: begun, finished, broken (a turn got no answer),
            cut (by the end of the run or the limit) and open; None for other workloads.
        wall_s: wall-clock time of the loop [s]; loop_requests_per_s = requests / wall_s.
    """

    requests: Columns
    timeline: Columns
    spans: Columns | None
    pools: list[PoolTotals]
    slo_classes: tuple[SLOClass, ...]
    gaps: dict[tuple[int, int], GapSample]
    end_s: float
    warmup_s: float
    horizon_s: float
    observed_s: float
    seed: int
    wall_s: float = 0.0
    task: str | None = None
    legs: Columns | None = None
    setup: dict[str, Any] = field(default_factory=dict)
    links: list[LinkTotals] = field(default_factory=list)
    sites: list[SiteEnergy] = field(default_factory=list)
    sessions: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.requests["request_id"])

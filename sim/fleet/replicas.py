"""Pools of replicas: engines of one kind, a balancer that spreads requests over them, and what they share."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from heapq import heapify, heappush
from typing import cast

from simpy import Environment

from sim.accounting.pue import weigh
from sim.fleet.admission import on_admission
from sim.fleet.balancers import BALANCERS, BY_TOKENS, ORDERED
from sim.fleet.engine_settings import ANDES, EngineSettings
from sim.fleet.estimates import Estimator
from sim.fleet.front_end import FrontEnd
from sim.fleet.handover import Handover
from sim.fleet.network import LiveLink
from sim.fleet.pool import LivePool
from sim.fleet.power_budget import limits_of
from sim.fleet.residents import Residents
from sim.fleet.spec import Pool, Site
from sim.hardware.collectives import Interconnect
from sim.hardware.expert_group import GroupTiming
from sim.hardware.pipeline import timing_of
from sim.hardware.sizing import check_fit, kv_layout
from sim.hardware.speculation import PARTS, SpeculativeTiming, pace
from sim.hardware.timing import StepTiming
from sim.qoe import SLOClass
from sim.request import Request
from sim.serving.andes import Andes
from sim.serving.costs import Shared
from sim.serving.engine import Engine
from sim.serving.limited import LimitedEngine
from sim.serving.lockstep import LockStep, Rank
from sim.serving.options import Options
from sim.serving.prefix_cache import PrefixCache
from sim.serving.queues import ORDERS

KV_ASKED = 16  #: replicas that are asked for their use of memory whenever a router reads it
KV_AGE_S = 0.05  #: time between two such readings of a pool with more replicas [s]


class ReplicaPool(LivePool):
    """The replicas of one `Pool`.

    Args:
        env, index, spec, site, link: as of any pool.
        rng: for balancers that draw.
        balancer: one of `sim.fleet.balancers.BALANCERS`.
        slo_classes: the workload's.
        stop_s: when the run will be cut off, if it does not drain [s].
        prefix_unit: tokens that a hash of the workload's prompts stands for; 0 if it has none.
    """

    def __init__(
        self,
        env: Environment,
        index: int,
        spec: Pool,
        site: Site,
        link: LiveLink | None,
        rng: random.Random,
        balancer: str,
        slo_classes: tuple[SLOClass, ...],
        stop_s: float = math.inf,
        prefix_unit: int = 0,
    ) -> None:
        engine = spec.engine
        self.prefix_unit = prefix_unit if engine.prefix_caching else 0
        self.blocks = check_fit(spec, self.prefix_unit > 0) - 1  # vLLM keeps one block as padding
        self.layout = kv_layout(spec, self.prefix_unit > 0)
        max_tokens = min(
            # the last token's KV is never needed; that of drafted ones is, and one more for the fraction of a token
            self.layout.longest(self.blocks) + 1 - (engine.speculative_tokens + 1) * (engine.speculative_tokens > 0),
            engine.max_model_len or spec.model.max_context,
        )
        super().__init__(env, index, spec, site, link, max_tokens)
        self.rng = rng
        self.model_id, self.xpu_id = spec.model.id, spec.xpu.id
        self.kv_format = spec.kv_precision or "bf16"
        self.kv_bytes_per_token = spec.model.kv_bytes_per_token(self.kv_format)
        self.replicas = spec.engines  # of data-parallel replicas every rank: it has a queue and memory of its own
        self.timing = replica_timing(spec)
        self.adapter_slots = engine.adapter_slots
        self.host_w = spec.host.power_w * spec.xpus_per_engine if spec.host else 0.0
        nameplate_w = spec.xpu.tdp_w * spec.xpus_per_engine + self.host_w
        self.tariff = spec.cost.rates().tariff if spec.cost is not None else None
        self.pue, self.overhead_w, self.weight = weigh(site.intensity, site.pue, nameplate_w, self.tariff)
        self._expectations = tuple((each.expected_ttft_s, each.digest_tokens_per_s) for each in slo_classes)
        options = self._options(engine)
        self.shared, self.stop_s = Shared(self.timing, engine.padding, options.parts), stop_s
        self.tokens_a_step = options.pace / options.parts  # that a decoding sequence gets on average
        self.groups = (
            [LockStep(env, cast(GroupTiming, self.timing)) for _ in range(spec.replicas)] if spec.dp > 1 else []
        )
        self.limits = limits_of(spec, site, replica_timing)
        self.engines = [self._replica(engine, len(slo_classes), index) for index in range(self.replicas)]
        self._pick = BALANCERS[balancer]
        self._by_tokens = balancer in BY_TOKENS
        self._several = self.replicas > 1
        self._ordered = balancer in ORDERED and self._several
        self.loads = [0] * self.replicas
        self.order = [(0, i) for i in range(self.replicas)]  # heap of (load, replica) with stale entries
        self.turn = -1
        self.balancer = balancer
        self._kv_use, self._kv_until_s = 0.0, -math.inf
        # whether a token takes one block's share of memory, in one place
        drafts = engine.speculative_tokens
        self._plain_blocks = not (self.layout.windowed or drafts or spec.prefill_replicas) and self.layout.full == 1
        occupied = engine.front_end_s or engine.tokenize_s or engine.tokenize_s_per_token
        self.front_end = FrontEnd(env, engine, self.replicas, self._parsed) if occupied else None
        self._finished = [self._on_done(i) for i in range(self.replicas)]
        self.handover = self._handover(spec.kv_link) if spec.kv_link is not None else None

    def _replica(self, engine: EngineSettings, classes: int, index: int) -> Engine:
        prompts = self.spec.prefill_replicas  # only replicas that compute prompts keep prefixes
        make: Callable[..., Engine] = partial(Rank, self.groups[index // self.spec.dp]) if self.groups else Engine
        if self.limits is not None:
            make = partial(LimitedEngine, self.limits, engine.padding)
        return make(
            self.env,
            self.timing,
            self.blocks,
            engine.block_size,
            engine.max_num_seqs,
            engine.max_num_batched_tokens * self.spec.pp,  # of all micro-batches
            self.weight,
            self.host_w + (self.overhead_w / self.pue if self.overhead_w else 0.0),
            classes,
            self.shared,
            self.spec.boot_s,
            self.stop_s,
            self._options(engine),
            self._prefix_cache(engine) if self.prefix_unit and (index < prompts or not prompts) else None,
            self.layout,
        )

    def _prefix_cache(self, engine: EngineSettings) -> PrefixCache:
        kv_bytes = self.kv_bytes_per_token
        units = int(engine.offload_bytes / (kv_bytes * self.prefix_unit)) if kv_bytes else 0
        return PrefixCache(engine.block_size, self.prefix_unit, units)

    def _options(self, engine: EngineSettings) -> Options:
        spec = self.spec
        kv_bytes = self.kv_bytes_per_token
        drafts, andes = engine.speculative_tokens, engine.scheduler == ANDES
        return Options(
            queue=Andes if andes else ORDERS[engine.scheduler],
            quantum_s=engine.andes_quantum_s if andes else 0.0,
            most_preemptions=engine.andes_preemptions,
            expectations=self._expectations,
            async_scheduling=engine.async_scheduling,
            whole_prompts=engine.batching == "whole",
            closed_batches=engine.batching == "static",
            swap_tokens=int(engine.swap_bytes / kv_bytes) if kv_bytes else 0,
            swap_s=kv_bytes / engine.swap_bytes_per_s,
            adapter_slots=engine.adapter_slots,
            adapter_load_s=engine.adapter_load_s,
            drafts=drafts,
            offload_s=kv_bytes / engine.offload_bytes_per_s if engine.offload_bytes else 0.0,
            encode=on_admission(spec, self.timing),
            pace=pace(engine.acceptance_rate or 0.0, drafts) if drafts else 1,
            parts=PARTS if drafts else 1,
        )

    def _balance(self, request: Request) -> int:
        """Name the replica of a request."""
        if not self._several:
            return 0
        if self.handover is not None:
            return self.handover.admit(request.prompt)
        leg = request.leg
        replica = self._pick(self, request) if leg is None or leg.replica < 0 else leg.replica
        self._change_load(replica, request.prompt + request.output if self._by_tokens else 1)
        return replica

    def _handover(self, link: Interconnect) -> Handover:
        """Let the first replicas hand over what they computed, and the others finish it."""
        spec, done = self.spec, self._finished
        kv_bytes = self.kv_bytes_per_token
        made = Handover(
            self.env, self.engines, spec.prefill_replicas, link, kv_bytes, lambda replica, seq: done[replica](seq)
        )
        self._finished = [partial(made.computed, replica) for replica in range(spec.prefill_replicas)]
        return made

    def _change_load(self, replica: int, by: int) -> None:
        load = self.loads[replica] = self.loads[replica] + by
        if self._ordered:
            heappush(self.order, (load, replica))
            if len(self.order) > 4 * self.replicas + 64:  # mostly stale entries by now
                self.order = [(load, i) for i, load in enumerate(self.loads)]
                heapify(self.order)

    def _lighten(self, replica: int, request: Request) -> None:
        self._change_load(replica, -(request.prompt + request.output) if self._by_tokens else -1)

    @cached_property
    def estimator(self) -> Estimator:
        """What routers ask of it, made when the first one does."""
        return Estimator(self)

    @property
    def waiting(self) -> int:
        """Requests queued for a place in a batch."""
        return self.shared.waiting

    @property
    def kv_use(self) -> float:
        """Mean share of KV blocks in use, in [0, 1]: of this moment, or at most `KV_AGE_S` old in a large pool."""
        now = self.env.now
        if now >= self._kv_until_s:
            self._kv_use = sum(engine.used_blocks() for engine in self.engines) / (self.blocks * self.replicas)
            if self.replicas > KV_ASKED:
                self._kv_until_s = now + KV_AGE_S
        return self._kv_use

    def kv_exceeds(self, share: float) -> bool:
        """As of any pool; replicas are asked only if all outstanding requests, whole and each with a block that is
        filled in part, would take more."""
        if self._plain_blocks:
            most = self.outstanding_tokens / self.layout.block + self.outstanding
            if most <= share * self.blocks * self.replicas:
                return False
        return self.kv_use > share

    def prefix_holders(self, request: Request) -> tuple[int, Mapping[int, int]]:
        """Most tokens of a prompt's prefix that a replica holds computed, and (as keys) the replicas that do."""
        unit = self.prefix_unit
        if not unit or not request.hashes:
            return 0, {}
        depth, holders = self._prefixes.deepest(request.hashes[: (request.prompt - 1) // unit])
        return depth * unit, holders

    @cached_property
    def _prefixes(self) -> Residents:
        return Residents(engine.prefix for engine in self.engines)

    def adapter_holders(self, adapter: int) -> Mapping[int, int]:
        """The replicas (as keys) that have an adapter loaded."""
        return self._adapters.of(adapter)

    @cached_property
    def _adapters(self) -> Residents:
        return Residents(engine.adapters for engine in self.engines)


def replica_timing(spec: Pool) -> StepTiming:
    """What the steps of a pool's replica cost: the model's, and where tokens are drafted, that as well."""
    deployment, drafts = spec.deployment(), spec.engine.speculative_tokens
    timing = timing_of(deployment, spec.timing)
    if not drafts:
        return timing
    model = spec.drafting_model
    draft = None if model is None else timing_of(replace(deployment, model=model), spec.timing)
    return SpeculativeTiming(timing, drafts, draft)

"""A pool at run time: its replicas, its load balancer, its link, and the loads that routers read."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from heapq import heapify, heappush
from typing import Any, cast

from simpy import Environment
from simpy.events import URGENT

from sim.accounting.pue import weigh
from sim.fleet.admission import on_admission
from sim.fleet.balancers import BALANCERS, BY_TOKENS, ORDERED
from sim.fleet.engine_settings import ANDES, EngineSettings
from sim.fleet.estimates import Estimator, Times, Work
from sim.fleet.front_end import FrontEnd
from sim.fleet.handover import Handover
from sim.fleet.leg import CANCELLED, FAILED, Leg
from sim.fleet.link import CLIENT
from sim.fleet.network import LiveLink, Network
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
from sim.serving.sequence import Sequence
from sim.serving.timer import Timer

Done = Callable[["LivePool", int, Sequence], None]
KV_ASKED = 16  #: replicas that are asked for their use of memory whenever a router reads it
KV_AGE_S = 0.05  #: time between two such readings of a pool with more replicas [s]


class LivePool:
    """The replicas of one `Pool`, and what a router may read of them (`sim.routing.base.PoolView`).

    Args:
        env: the SimPy environment.
        index: position in the fleet.
        spec, site: what it is and where.
        link: the client link of its site, or None.
        rng: for balancers that draw.
        balancer: one of `sim.fleet.balancers.BALANCERS`.
        slo_classes: the workload's.
        stop_s: when the run will be cut off, if it does not drain [s].
        prefix_unit: tokens that a hash of the workload's prompts stands for; 0 if it has none.

    Attributes:
        done: to be set: called with the pool, the replica's index and the sequence when a request has ended there.
        turned_away: to be set: called with the pool, a request, a status and the time when it ends at the door.
        up: whether the pool is in service; may_fail: whether it will ever not be.
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
        self.env, self.index, self.spec, self.site, self.link, self.rng = env, index, spec, site, link, rng
        self.name, self.site_name, self.site_kind = spec.name, site.name, site.kind
        self.model_id, self.xpu_id = spec.model.id, spec.xpu.id
        self.kv_format = spec.kv_precision or "bf16"
        self.kv_bytes_per_token = spec.model.kv_bytes_per_token(self.kv_format)
        self.replicas = spec.engines  # of data-parallel replicas every rank: it has a queue and memory of its own
        engine = spec.engine
        self.prefix_unit = prefix_unit if engine.prefix_caching else 0
        self.blocks = check_fit(spec, self.prefix_unit > 0) - 1  # vLLM keeps one block as padding
        self.layout = kv_layout(spec, self.prefix_unit > 0)
        self.timing = replica_timing(spec)
        self.max_tokens = min(
            # the last token's KV is never needed; that of drafted ones is, and one more for the fraction of a token
            self.layout.longest(self.blocks) + 1 - (engine.speculative_tokens + 1) * (engine.speculative_tokens > 0),
            engine.max_model_len or spec.model.max_context,
        )
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
        self.outstanding = self.outstanding_tokens = 0
        self.output_tokens = 0  # of outstanding requests
        self._pick = BALANCERS[balancer]
        self._by_tokens = balancer in BY_TOKENS
        self._several = self.replicas > 1
        self._ordered = balancer in ORDERED and self._several
        self.loads = [0] * self.replicas
        self.order = [(0, i) for i in range(self.replicas)]  # heap of (load, replica) with stale entries
        self.turn = -1
        self._kv_use, self._kv_until_s = 0.0, -math.inf
        occupied = engine.front_end_s or engine.tokenize_s or engine.tokenize_s_per_token
        self.front_end = FrontEnd(env, engine, self.replicas, self._parsed) if occupied else None
        self.uploading: dict[int, Request] = {}  # on their way over the link and through the front end
        self.done: Done
        self.turned_away: Callable[[LivePool, Request, int, float], None]
        self.up, self.may_fail = True, bool(spec.outages)
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

    def send(self, request: Request) -> None:
        """Take a request from a client at the site's door: over the link where there is one."""
        self.outstanding += 1
        self.outstanding_tokens += request.prompt + request.output
        self.output_tokens += request.output
        if self.link is not None:
            self.uploading[request.id] = request
            self.link.upload(self.link.spec.prompt_bytes_per_token * request.prompt, request, self._arrived)
        elif self.front_end is not None:
            self.uploading[request.id] = request
            self._arrived(request)
        else:
            self._deliver(request, self._balance(request) if self._several else 0, request.arrival_s)

    def dispatch(self, leg: Leg, source: str, network: Network, nbytes: float | None, replica: int | None) -> None:
        """Take a leg of a journey: from clients, or from another site over what joins the two.

        Args:
            nbytes: what is sent [bytes]; None for the text of the prompt.
            replica: which one is to serve it; None for the balancer's choice.
        """
        request, link = leg.request, self.link
        self.outstanding += 1
        self.outstanding_tokens += request.prompt + request.output
        self.output_tokens += request.output
        self.uploading[request.id] = request
        leg.replica = -1 if replica is None else replica
        if nbytes is None:
            nbytes = request.prompt * (4.0 if link is None else link.spec.prompt_bytes_per_token)
        if source == CLIENT and link is not None:
            link.upload(nbytes, request, self._arrived)
        elif source == CLIENT:
            self._arrived(request)
        else:
            if link is not None:
                link.join(request)
            network.transfer(source, self.site_name, nbytes, partial(self._arrived, request))

    def _arrived(self, request: Request) -> None:
        """A request is at the pool's door: it is balanced there, for every replica has a front end of its own."""
        leg = request.leg
        if leg is not None and (leg.doomed or not self.up):
            self._turn_away(request, CANCELLED if leg.doomed else FAILED)
            return
        replica = self._balance(request)
        if self.front_end is not None:
            self.front_end.enter(request, replica)
        else:
            self._parsed(request, replica)

    def _parsed(self, request: Request, replica: int) -> None:
        del self.uploading[request.id]
        # the clock may be a rounding error before the arrival that it was set for
        self._deliver(request, replica, max(self.env.now, request.arrival_s))

    def _turn_away(self, request: Request, status: int) -> None:
        """A request ends at the door."""
        del self.uploading[request.id]
        self._leave(request)
        self.turned_away(self, request, status, self.env.now)
        if request.leg is not None:
            request.leg.end(status)

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

    def _deliver(self, request: Request, replica: int, now: float) -> None:
        """Put a request into the queue of a replica."""
        request.queued_s = now
        seq = Sequence(request, now, self._finished[replica])
        if self.handover is not None:
            seq.target = 1
        leg = request.leg
        if leg is None:
            self.engines[replica].submit(seq, now)
            return
        leg.queued(seq, replica)
        self.engines[replica].submit(seq, now)
        if not self.up and self.spec.plan is None:  # in the front end as the pool failed: no step has begun
            self.engines[replica].drop_waiting(seq, now, FAILED)
        elif leg.doomed:
            self.cancel(leg)

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

    def _on_done(self, replica: int) -> Callable[[Sequence], None]:
        def finished(seq: Sequence) -> None:
            request = seq.request
            self._leave(request)
            if self._several and self.handover is None:
                self._change_load(replica, -(request.prompt + request.output) if self._by_tokens else -1)
            self.done(self, replica, seq)
            if request.leg is not None:
                request.leg.replica = replica
                request.leg.end(seq.status, self.engines[replica])

        return finished

    def _leave(self, request: Request) -> None:
        """A request is no longer outstanding."""
        self.outstanding -= 1
        self.outstanding_tokens -= request.prompt + request.output
        self.output_tokens -= request.output

    # -- legs of journeys ---------------------------------------------------------------------------------------------

    def emitted(self, seq: Sequence, replica: int) -> int:
        """Output tokens that a sequence has by now."""
        engine = self._engine_of(seq, replica)
        return seq.emitted if engine is None else engine.emitted_now(seq)

    def cancel(self, leg: Leg) -> None:
        """End a leg before its last token, where it is; on its way it first has to arrive."""
        seq = leg.sequence
        if seq is None:
            leg.doomed = True
            return
        engine = self._engine_of(seq, leg.replica)
        if engine is not None:
            engine.cancel(seq, self.env.now)
        elif self.handover is not None:
            self.handover.doomed.add(seq)

    def _engine_of(self, seq: Sequence, replica: int) -> Engine | None:
        """Which engine has a sequence; None while its KV cache is on the way from one to another."""
        if self.handover is None:
            return self.engines[replica]
        return next((each for each in self.engines if seq in each.running or seq in each.waiting), None)

    # -- outages ------------------------------------------------------------------------------------------------------

    def schedule_outages(self) -> None:
        """Let the outages of its specification happen."""
        for start_s, end_s in self.spec.outages:
            self.env.schedule(Timer(self.env, partial(self._fail, end_s)), URGENT, start_s)
            self.env.schedule(Timer(self.env, self._recover), URGENT, end_s)

    def _fail(self, until_s: float, _: Timer) -> None:
        """Out of service: every replica loses what it had, and what is copied between them is lost too."""
        self.up = False
        if self.handover is not None:
            self.handover.fail()
        for engine in self.engines:
            engine.ready_s = max(engine.ready_s, until_s)
        for engine in self.engines:
            engine.fail(self.env.now)

    def _recover(self, _: Timer) -> None:
        self.up = True

    @cached_property
    def served_quality(self) -> Mapping[str, float]:
        """Scores by benchmark of its model as served; unknown ones are absent."""
        return self.spec.served_quality

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

    def prefix_tokens(self, request: Request) -> int:
        """Tokens of a prompt that its best replica need not compute."""
        return max(request.cached, self.prefix_holders(request)[0])

    def adapter_holders(self, adapter: int) -> Mapping[int, int]:
        """The replicas (as keys) that have an adapter loaded."""
        return self._adapters.of(adapter)

    @cached_property
    def _adapters(self) -> Residents:
        return Residents(engine.adapters for engine in self.engines)

    @property
    def pue_now(self) -> float:
        """Facility over IT power at this moment; where it varies with load, of the next watt."""
        ratio: Any = self.site.pue
        return self.pue if math.isfinite(self.pue) else float(ratio.at(self.env.now))

    @property
    def power_w(self) -> float:
        """Facility power drawn now, from mean loads alone [W]."""
        return self.estimator.power_w(self)

    def predicted_latency_s(self, prompt: int, output: int) -> float:
        """Estimated E2E latency of a request sent there now [s], from mean loads alone."""
        return self.estimator.times(self, prompt, output).e2e_s

    def times(self, prompt: int, output: int, cached: int = 0) -> Times:
        """See `Estimator.times`."""
        return self.estimator.times(self, prompt, output, cached)

    def work(self, prompt: int, output: int, cached: int = 0, batch: int | None = None) -> Work:
        """See `Estimator.work`; without a `batch`, at the pool's present one."""
        estimator = self.estimator
        return estimator.work(prompt, output, cached, estimator.present_batch(self) if batch is None else batch)

    def full_batch(self, prompt: int, output: int, tpot_s: float) -> int:
        """See `Estimator.full_batch`."""
        return self.estimator.full_batch(prompt, output, tpot_s)


def replica_timing(spec: Pool) -> StepTiming:
    """What the steps of a pool's replica cost: the model's, and where tokens are drafted, that as well."""
    deployment, drafts = spec.deployment(), spec.engine.speculative_tokens
    timing = timing_of(deployment, spec.timing)
    if not drafts:
        return timing
    model = spec.drafting_model
    draft = None if model is None else timing_of(replace(deployment, model=model), spec.timing)
    return SpeculativeTiming(timing, drafts, draft)

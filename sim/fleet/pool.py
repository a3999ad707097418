"""A pool at run time: the door through which requests come and go, its outages, and the loads that routers read."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

from simpy import Environment
from simpy.events import URGENT

from sim.accounting.signal import Signal
from sim.fleet.estimates import Estimator, Times, Work
from sim.fleet.front_end import FrontEnd
from sim.fleet.handover import Handover
from sim.fleet.leg import CANCELLED, FAILED, Leg
from sim.fleet.link import CLIENT
from sim.fleet.network import LiveLink, Network
from sim.fleet.spec import Pool, Site
from sim.hardware.kv_layout import KvLayout
from sim.hardware.timing import StepTiming
from sim.request import Request
from sim.serving.engine import Engine
from sim.serving.lockstep import LockStep
from sim.serving.sequence import Sequence
from sim.serving.timer import Timer

Done = Callable[["LivePool", int, Sequence], None]


class LivePool(ABC):
    """A pool at run time: its door (link, ways in and out, outages), and the loads that routers read of it.

    What serves behind the door is a subclass's: replicas (`sim.fleet.replicas.ReplicaPool`), or a provider
    (`sim.fleet.live_api.LiveApi`). It sets what is only declared here.

    Args:
        env: the SimPy environment.
        index: position in the fleet.
        spec, site: what it is and where.
        link: the client link of its site, or None.
        max_tokens: longest prompt + output that it can hold [tokens].

    Attributes:
        engines: what serves; replicas: how many of them take requests.
        loads: of each, as its balancer counts.
        done: to be set: called with the pool, the replica's index and the sequence when a request has ended there.
        turned_away: to be set: called with the pool, a request, a status and the time when it ends at the door.
        uploading: requests on their way over the link and through the front end.
        up: whether the pool is in service; may_fail: whether it will ever not be.
        tariff, pue, overhead_w, host_w, weight: what its meter is weighed with (`sim.accounting.pue.weigh`).
        tokens_a_step: that a decoding sequence gets on average.
    """

    engines: list[Engine]
    replicas: int
    loads: list[int]
    model_id: str
    xpu_id: str
    kv_format: str
    kv_bytes_per_token: float
    adapter_slots: int
    prefix_unit: int
    blocks: int
    groups: list[LockStep]
    tariff: Signal | None
    pue: float
    overhead_w: float
    host_w: float
    tokens_a_step: float
    timing: StepTiming  # these three of replicas alone
    layout: KvLayout
    weight: Signal
    done: Done
    turned_away: Callable[[LivePool, Request, int, float], None]

    def __init__(
        self, env: Environment, index: int, spec: Pool, site: Site, link: LiveLink | None, max_tokens: int
    ) -> None:
        self.env, self.index, self.spec, self.site, self.link = env, index, spec, site, link
        self.name, self.site_name, self.site_kind = spec.name, site.name, site.kind
        self.max_tokens = max_tokens
        self.outstanding = self.outstanding_tokens = 0
        self.output_tokens = 0  # of outstanding requests
        self.uploading: dict[int, Request] = {}
        self.up, self.may_fail = True, bool(spec.outages)
        self.front_end: FrontEnd | None = None
        self.handover: Handover | None = None
        self._several = False  # whether there is anything to balance over
        self._finished: list[Callable[[Sequence], None]] = []

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

    def dispatch(self, leg: Leg, source: str, network: Network, nbytes: float, replica: int | None) -> None:
        """Take a leg of a journey: from clients, or from another site over what joins the two.

        Args:
            nbytes: what is sent [bytes].
            replica: which one is to serve it; None for the balancer's choice.
        """
        request, link = leg.request, self.link
        self.outstanding += 1
        self.outstanding_tokens += request.prompt + request.output
        self.output_tokens += request.output
        self.uploading[request.id] = request
        leg.replica = -1 if replica is None else replica
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
        return 0

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

    def _on_done(self, replica: int) -> Callable[[Sequence], None]:
        def finished(seq: Sequence) -> None:
            request = seq.request
            self.outstanding -= 1  # as `_leave`
            self.outstanding_tokens -= request.prompt + request.output
            self.output_tokens -= request.output
            if self._several and self.handover is None:
                self._lighten(replica, request)
            self.done(self, replica, seq)
            if request.leg is not None:
                request.leg.replica = replica
                request.leg.end(seq.status, self.engines[replica])

        return finished

    def _lighten(self, replica: int, request: Request) -> None:  # noqa: B027 - only where there are several to balance over
        """A request no longer loads its replica."""

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

    # -- what routers read ---------------------------------------------------------------------------------------------

    @cached_property
    def served_quality(self) -> Mapping[str, float]:
        """Scores by benchmark of its model as served; unknown ones are absent."""
        return self.spec.served_quality

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Requests queued for a place in a batch."""

    @property
    @abstractmethod
    def kv_use(self) -> float:
        """Mean share of KV blocks in use, in [0, 1]."""

    def kv_exceeds(self, share: float) -> bool:
        """Whether `kv_use` is above a share, for whoever needs no more than that."""
        return self.kv_use > share

    @property
    @abstractmethod
    def estimator(self) -> Estimator:
        """What routers ask of it."""

    def prefix_holders(self, request: Request) -> tuple[int, Mapping[int, int]]:
        """Most tokens of a prompt's prefix that a replica holds computed, and (as keys) the replicas that do."""
        return 0, {}

    def adapter_holders(self, adapter: int) -> Mapping[int, int]:
        """The replicas (as keys) that have an adapter loaded."""
        return {}

    def prefix_tokens(self, request: Request) -> int:
        """Tokens of a prompt that its best replica need not compute."""
        return max(request.cached, self.prefix_holders(request)[0])

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

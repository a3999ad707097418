"""`run`: the main loop. A workload's requests meet a fleet under a router; tables come back.

Each request is one arrival event; the router names a pool, the pool's link carries it there, a replica's engine serves
it (see `sim.serving.engine`), and the observer keeps one record. Nothing here knows files or configuration.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
from simpy import Environment
from simpy.core import EmptySchedule, StopSimulation
from simpy.events import NORMAL, URGENT

from sim.accounting.forecast import Forecast, ForecastModel
from sim.accounting.ledger import close_totals, request_columns
from sim.accounting.links import link_totals
from sim.accounting.settlement import meter_sites, settle_sites
from sim.errors import InputError, instance, number, provider
from sim.feed import feed_of
from sim.fleet.api import ApiPool
from sim.fleet.balancers import balancer_of, scheduled
from sim.fleet.live_api import LiveApi
from sim.fleet.network import Network
from sim.fleet.planned import PlannedPool
from sim.fleet.pool import LivePool
from sim.fleet.power_budget import budgeted
from sim.fleet.spec import Fleet
from sim.fleet.spot import interrupted
from sim.journey import Routed
from sim.journeys import Journeys
from sim.labels import Labels
from sim.observer import COMPLETED, Observer
from sim.quality import Answers, QualityModel
from sim.request import NO_TRAITS, Request
from sim.results import Result
from sim.rng import Streams
from sim.routing.base import Router
from sim.routing.feedback import telling
from sim.routing.nested import check_nesting
from sim.serving.timer import Timer
from sim.tables import answer_quality, request_table, span_table, timeline_table
from sim.workload.base import Workload

EVENTS_BETWEEN_LOOKS = 2000  #: events between two looks at the wall clock
PROGRESS_S = 0.1  #: wall-clock time between two reports [s]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        sim_time_s: simulated time [s]; end_s: where the horizon is, or None.
        arrived, done: requests so far; expected: about how many will come, or None.
    """

    sim_time_s: float
    end_s: float | None
    arrived: int
    done: int
    expected: float | None


def run(
    fleet: Fleet,
    workload: Workload,
    router: Router,
    *,
    seed: int = 0,
    warmup_s: float = 0.0,
    horizon_s: float | None = None,
    drain: bool = True,
    oversize: str = "error",
    timeline_bin_s: float | None = None,
    keep_spans: bool = False,
    progress: Callable[[Progress], None] | None = None,
    quality: QualityModel | None = None,
) -> Result:
    """Simulate one workload on one fleet.

    Args:
        fleet, workload, router: what runs.
        seed: root of every random stream.
        warmup_s: requests that arrive earlier do not count in what users experience [s].
        horizon_s: requests that would arrive at or after it do not come; None runs the workload to its end [s].
        drain: True serves what has arrived to its end; False stops at the horizon and leaves the rest in flight.
        oversize: what to do with a request that no pool can hold: ``error`` or ``reject``.
        timeline_bin_s: width of the timeline's bins; None keeps at most 1,000 [s].
        keep_spans: also return the spans of the step clocks.
        progress: called some times a second with how far the run is.
        quality: what is known about answers; None for nothing but the workload's labels.

    Raises:
        InputError: a value cannot be used; the message names it.
    """
    _check_parts(fleet, workload, router)
    _check(warmup_s, horizon_s, drain, oversize, timeline_bin_s, seed)
    started = time.perf_counter()
    _check_signals(fleet, horizon_s)
    state = _Run(fleet, workload, router, seed, horizon_s, drain, oversize, timeline_bin_s, keep_spans, quality)
    step = state.env.step
    if not drain:
        state.stop_at_horizon()
    state.next_arrival()
    next_report = 0.0
    try:
        while True:
            for _ in range(EVENTS_BETWEEN_LOOKS):
                step()
            if progress is not None and time.perf_counter() >= next_report:
                next_report = time.perf_counter() + PROGRESS_S
                progress(Progress(state.now, horizon_s, state.arrived, state.done, workload.expected_requests()))
    except (EmptySchedule, StopSimulation):
        pass  # everything has been served, or the horizon is reached
    return state.result(warmup_s, drain, started)


def _check_parts(fleet: Fleet, workload: Workload, router: Router) -> None:
    instance("fleet", fleet, Fleet, "a Fleet of Sites")
    provider("workload", workload, ["batches", "expected_requests"], "a workload such as TraceWorkload(path)")
    methods = ["handle"] if hasattr(router, "handle") else ["choose"]
    provider("router", router, methods, "a router or policy, made: CloudOnly(), not CloudOnly")
    check_nesting(router)
    for pool in fleet.pools:
        part = None if pool.model is None else pool.model.part
        if part is not None and not getattr(router, "splits_layers", False):
            accepted = "null, or router=layer_split, for a part of a model answers nobody by itself"
            raise InputError(f"pools.{pool.name}.layers", [part.first, part.end], accepted)


def _check(
    warmup_s: float, horizon_s: float | None, drain: bool, oversize: str, bin_s: float | None, seed: int
) -> None:
    number("warmup_s", warmup_s, "a time >= 0 s", low=0.0)
    if horizon_s is not None:
        number("horizon_s", horizon_s, f"a time after warmup_s ({warmup_s} s), or null", above=warmup_s)
    if not isinstance(drain, bool) or (not drain and horizon_s is None):
        raise InputError("drain", drain, "true, or false with a horizon_s at which to stop")
    if oversize not in ("error", "reject"):
        raise InputError("oversize", oversize, "error | reject")
    if bin_s is not None:
        number("timeline_bin_s", bin_s, "a time > 0 s, or null", above=0.0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError("seed", seed, "a whole number >= 0")


def _check_signals(fleet: Fleet, horizon_s: float | None) -> None:
    """Let signals that are read from data say before the run that they do not reach its horizon."""
    for site in fleet.sites:
        tariffs = [pool.cost.rates().tariff for pool in site.pools if pool.cost is not None]
        own = site.on_site.signals() if site.on_site is not None else ()
        own += (site.power_budget.kw,) if site.power_budget is not None else ()
        for signal in (site.intensity, site.pue, *tariffs, *own):
            require = getattr(signal, "require", None)
            if require is not None and horizon_s is not None and site.pools:
                require(horizon_s)
    for link in fleet.links:
        require = getattr(link.intensity, "require", None)
        if require is not None and horizon_s is not None:
            require(horizon_s)


class _Run:
    """The live objects of one run, and the callbacks that move a request along."""

    def __init__(
        self,
        fleet: Fleet,
        workload: Workload,
        router: Router,
        seed: int,
        horizon_s: float | None,
        drain: bool,
        oversize: str,
        bin_s: float | None,
        keep_spans: bool,
        quality: QualityModel | None,
    ) -> None:
        self.env = Environment()
        self.seed, self.oversize = seed, oversize
        self.horizon_s = math.inf if horizon_s is None else horizon_s
        streams = self._streams = Streams(seed)
        self.rng = random.Random(int(streams.get("routing").integers(1 << 62)))
        classes = workload.slo_classes
        stop_s = math.inf if drain else self.horizon_s
        self.network = Network(self.env, fleet, streams)
        self._sites = {site.name: site for site in fleet.sites}
        self.pools = list(_live_pools(self, fleet, router, workload, streams, stop_s))
        self.observer = Observer(self.pools, classes, bin_s, keep_spans)
        meter_sites(self.pools, self.observer.series)
        self.slo_classes = classes
        done = telling(router, self.observer.complete)
        self.feed = feed_of(self, workload, streams)
        if self.feed is not None:
            done = self.feed.hearing(done)
        for pool in self.pools:
            pool.done = done
        self.quality = Answers(quality or QualityModel(), seed, self.pools, getattr(workload, "labels", None))
        policy: Any = router
        if not hasattr(router, "handle") and any(pool.may_fail for pool in self.pools):
            policy = Routed(router)
        self.journeys = Journeys(self, policy) if hasattr(policy, "handle") else None
        for pool in self.pools:
            pool.turned_away = self.observer.turn_away
            pool.schedule_outages()
        bind = getattr(policy, "bind", None)
        if bind is not None:
            bind(self)
        self._router = router
        self._choose: Any = getattr(router, "choose", None)
        drawn = _requests(workload, streams, self.horizon_s, self.quality.labels)
        self._requests = drawn if self.feed is None else self.feed.begin()
        self._timer = Timer(self.env, self._arrive if self.journeys is None else self._set_out)
        self._coming: Request | None = None
        self._schedule = self.env.schedule
        self.arrived = 0

    @property
    def now(self) -> float:
        """Simulated time [s]."""
        return float(self.env.now)

    def linked(self, one: str, other: str) -> bool:
        """Whether two places are one, or a link joins them."""
        return self.network.linked(one, other)

    def forecasts(self, model: ForecastModel) -> list[Forecast]:
        """Forecasts of carbon intensity, one a pool."""
        return [model.of(pool.site_name, pool.site.intensity, self._streams) for pool in self.pools]

    @property
    def done(self) -> int:
        """Requests that have ended."""
        return self.observer.closed if self.journeys is None else self.journeys.closed

    def stop_at_horizon(self) -> None:
        """Let the loop end when simulated time reaches the horizon, before anything else happens then."""

        def stop(event: Timer) -> None:
            raise StopSimulation(event)

        self.env.schedule(Timer(self.env, stop), URGENT, self.horizon_s)

    def next_arrival(self) -> None:
        """Schedule the arrival of the next request, if there is one."""
        request = self._coming = next(self._requests, None)
        if request is not None:
            delay = request.arrival_s - self.env.now
            self._schedule(self._timer, NORMAL, delay if delay > 0.0 else 0.0)

    def come(self, request: Request, event: Timer) -> None:
        """A request that the workload could not tell of before arrives now."""
        self._coming = request
        self._timer.wake[0](event)

    def _arrive(self, event: Timer) -> None:
        event.callbacks = event.wake
        request: Any = self._coming
        self.arrived += 1
        pool: Any = self._choose(request, self)
        if pool is None or request.prompt + request.output > pool.max_tokens:
            self._refuse(request)
        else:
            pool.send(request)
        self.next_arrival()

    def _set_out(self, event: Timer) -> None:
        """`_arrive` where a policy does more than choose a pool."""
        event.callbacks = event.wake
        request: Any = self._coming
        journeys: Any = self.journeys
        self.arrived += 1
        journeys.begin(request)
        self.next_arrival()

    def _refuse(self, request: Request) -> None:
        """A request that was rejected, or that the chosen pool cannot hold."""
        self.check_size(request)
        self.observer.reject(request)
        if self.feed is not None:
            self.feed.refused(request.id)

    def check_size(self, request: Request) -> None:
        """Refuse to go on with a request that no pool can hold, unless such are to be turned away.

        Raises:
            InputError: it is one.
        """
        total = request.prompt + request.output
        most = max(self.pools, key=lambda pool: pool.max_tokens)
        if total > most.max_tokens and self.oversize == "error":
            raise InputError(
                f"request {request.id} prompt + output tokens",
                total,
                f"at most {most.max_tokens} (pool {most.name}: KV cache and max_model_len); "
                "oversize=reject turns such requests away and counts them",
            )

    def result(self, warmup_s: float, drain: bool, started: float) -> Result:
        """Close the books and build the tables."""
        observer = self.observer
        end_s = self.horizon_s
        if drain:
            last = max(engine.end_s for pool in self.pools for engine in pool.engines)
            end_s = max(last, self.horizon_s if math.isfinite(self.horizon_s) else 0.0)
        for pool in self.pools:
            for engine in pool.engines:
                engine.halt(end_s)
        observer.close(end_s)
        observer.fold()
        if self.journeys is not None:
            self.journeys.close_open()
        records = observer.table()
        useful = records["status"] == COMPLETED if self.journeys is None else self.journeys.useful()
        records["useful"] = useful.astype(np.float64)
        if self.journeys is not None:
            records["client_bytes"] = np.add(*self.journeys.traffic(self.pools, records))
        unknown = np.full(len(useful), np.nan)  # of legs; of requests once their journeys are put together
        quality = unknown if self.journeys is not None else answer_quality(records, self.pools, self.quality)
        found = observer.hidden, observer.speech
        requests = request_table(records, observer.slo_classes, warmup_s, self.horizon_s, quality, *found)
        requests |= request_columns(records, self.pools, end_s)
        totals = [close_totals(pool, requests, observer.steps[pool.index], end_s) for pool in self.pools]
        unaccounted: Callable[[str], tuple[str, ...]] = getattr(self._router, "unaccounted", lambda name: ())
        for each in totals:
            each.incomplete += unaccounted(each.name)
        sites = settle_sites(self.pools, observer.series, totals, end_s, self._streams)
        legs = None
        if self.journeys is not None:
            self.journeys.count_traffic(totals, requests)
            legs = self.journeys.leg_table(requests)
            requests = self.journeys.request_table(requests, warmup_s, self.horizon_s)
        observed = (self.horizon_s if math.isfinite(self.horizon_s) else end_s) - warmup_s
        return Result(
            requests=requests,
            timeline=timeline_table(observer, self.pools, end_s),
            spans=span_table(observer),
            pools=totals,
            slo_classes=observer.slo_classes,
            gaps={key: gaps.sample() for key, gaps in observer.gaps.items()},
            end_s=end_s,
            warmup_s=warmup_s,
            horizon_s=self.horizon_s,
            observed_s=max(observed, 0.0),
            seed=self.seed,
            wall_s=time.perf_counter() - started,
            task=self.quality.task,
            links=[link_totals(link, self._sites, end_s) for link in self.network.links],
            legs=legs,
            sites=sites,
            sessions=None if self.feed is None else self.feed.loop.counts(),
        )


def _live_pools(
    state: _Run, fleet: Fleet, router: Router, workload: Workload, streams: Streams, stop_s: float
) -> Iterator[LivePool]:
    index, unit = -1, _prefix_unit(router, workload)
    for site in fleet.sites:
        for pool in map(
            partial(interrupted, streams=streams, until_s=state.horizon_s), budgeted(site, state.horizon_s)
        ):
            link, index = state.network.client_link(site.name), index + 1
            if isinstance(pool, ApiPool):
                yield LiveApi(state.env, index, pool, site, link, streams, len(workload.slo_classes))
                continue
            yield (LivePool if pool.plan is None else PlannedPool)(
                state.env,
                index,
                scheduled(pool, router),
                site,
                link,
                random.Random(int(streams.get(f"balancer {pool.name}").integers(1 << 62))),
                balancer_of(pool, router),
                workload.slo_classes,
                stop_s,
                unit,
            )


def _prefix_unit(router: Router, workload: Workload) -> int:
    """Tokens that a name of a prefix stands for; a policy that puts prompts together names them itself.

    Raises:
        InputError: workload and policy do not agree.
    """
    own, given = getattr(router, "prefix_unit", 0), getattr(workload, "prefix_unit", 0)
    if own and given and own != given:
        raise InputError("router prefix unit", own, f"that of the workload's prompts ({given} tokens)")
    return int(own or given)


def _requests(
    workload: Workload, streams: Streams, horizon_s: float, labels: Labels | None = None
) -> Iterator[Request]:
    """Requests one by one, in order of arrival, those before the horizon; labels learn what each asks."""
    number = 0
    for batch in workload.batches(streams):
        if labels is not None and batch.question is not None:
            labels.ask(batch.question)
        cached = batch.cached_tokens
        for arrival, prompt, output, slo_class, hit, hashes, traits in zip(
            batch.arrival_s.tolist(),
            batch.prompt_tokens.tolist(),
            batch.output_tokens.tolist(),
            batch.slo_class.tolist(),
            repeat(0) if cached is None else cached.tolist(),
            repeat(None) if batch.hashes is None else batch.hashes,
            repeat(NO_TRAITS) if batch.traits is None else batch.traits,
        ):
            if arrival >= horizon_s:
                return
            yield Request(number, arrival, prompt, output, slo_class, hit, hashes, traits)
            number += 1

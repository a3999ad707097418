"""One run's live objects: pools, network, observer, and the callbacks that take each request to its pool."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

from simpy import Environment
from simpy.core import StopSimulation
from simpy.events import NORMAL, URGENT

from sim.accounting.forecast import Forecast, ForecastModel
from sim.accounting.settlement import meter_sites
from sim.arrivals import requests_of
from sim.errors import InputError
from sim.feed import feed_of
from sim.fleet.api import ApiPool
from sim.fleet.balancers import balancer_of, scheduled
from sim.fleet.live_api import LiveApi
from sim.fleet.network import Network
from sim.fleet.planned import PlannedPool
from sim.fleet.pool import LivePool
from sim.fleet.power_budget import budgeted
from sim.fleet.replicas import ReplicaPool
from sim.fleet.spec import Fleet
from sim.fleet.spot import interrupted
from sim.journey import Routed
from sim.journeys import Journeys
from sim.observer import Observer
from sim.quality import Answers, QualityModel
from sim.request import Request
from sim.rng import Streams
from sim.routing.base import Router
from sim.routing.feedback import telling
from sim.serving.timer import Timer
from sim.workload.base import Workload


class LiveRun:
    """The live objects of one run, and the callbacks that move a request along: what routers see as the fleet.

    Args:
        fleet, workload, router, seed, horizon_s, drain, oversize, quality, keep_spans: as of `sim.run`.
        bin_s: width of the timeline's bins [s].
    """

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
        streams = self.streams = Streams(seed)
        self.rng = random.Random(int(streams.get("routing").integers(1 << 62)))
        classes = workload.slo_classes
        stop_s = math.inf if drain else self.horizon_s
        self.network = Network(self.env, fleet, streams)
        self.sites = {site.name: site for site in fleet.sites}
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
        self.router = router
        self._choose: Any = getattr(router, "choose", None)
        drawn = requests_of(workload, streams, self.horizon_s, self.quality.labels)
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
        return [model.of(pool.site_name, pool.site.intensity, self.streams) for pool in self.pools]

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


def _live_pools(
    state: LiveRun, fleet: Fleet, router: Router, workload: Workload, streams: Streams, stop_s: float
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
            yield (ReplicaPool if pool.plan is None else PlannedPool)(
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

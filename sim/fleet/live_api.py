"""An API at run time: the door of any pool (link, way in and out, outages), and a provider behind it."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

from simpy import Environment

from sim.fleet.api import ApiPool
from sim.fleet.estimates import Loads, Times, Work
from sim.fleet.network import Drawn, LiveLink
from sim.fleet.pool import LivePool
from sim.fleet.spec import Site
from sim.rng import Streams
from sim.serving.provider import Provider

if TYPE_CHECKING:
    from sim.serving.sequence import Sequence

SECONDS_PER_MINUTE = 60.0


class LiveApi(LivePool):
    """An `ApiPool` that requests can be sent to.

    Args:
        env, index, site, link: as of any pool.
        spec: what it is.
        streams: of the run; times to first tokens and rates are drawn from two of the pool's name.
        classes: number of SLO classes.
    """

    def __init__(
        self,
        env: Environment,
        index: int,
        spec: ApiPool,
        site: Site,
        link: LiveLink | None,
        streams: Streams,
        classes: int,
    ) -> None:
        like_a_pool: Any = spec
        super().__init__(env, index, like_a_pool, site, link, spec.max_tokens)
        self.api = spec
        self.model_id, self.xpu_id = spec.model_id, ""
        self.kv_format, self.kv_bytes_per_token = "", math.nan
        self.replicas, self.adapter_slots, self.prefix_unit, self.blocks = 1, 0, 0, 0
        self.tariff, self.pue, self.overhead_w, self.host_w = None, 1.0, 0.0, 0.0
        self.tokens_a_step = 1.0
        self.groups = []
        rate = spec.requests_per_minute
        energy = spec.energy
        self.provider = Provider(
            env,
            Drawn(spec.ttft.draw, streams.get(f"api first token {spec.name}")).next,
            Drawn(spec.tokens_per_s.token_s.draw, streams.get(f"api rate {spec.name}")).next,
            math.inf if spec.max_concurrent is None else spec.max_concurrent,
            0.0 if rate is None else SECONDS_PER_MINUTE / rate,
            spec.cached_share,
            (0.0, 0.0) if energy is None else (energy.j_per_token_in, energy.j_per_token_out),
            classes,
        )
        engines: list[Any] = [self.provider]
        self.engines, self.loads = engines, [0]
        self.lost_usd = self.lost_g = 0.0  # of what was bought, went into no answer; known when a run is over
        self._finished = [self._on_done(0)]

    @property
    def waiting(self) -> int:
        """Requests that the account's limits hold back."""
        return len(self.provider.waiting)

    @property
    def kv_use(self) -> float:
        """0: its memory is the provider's concern, and never full."""
        return 0.0

    @cached_property
    def estimator(self) -> Any:
        """What routers ask of it."""
        return ApiEstimator(self)

    @property
    def pue_now(self) -> float:
        """1: estimates of a provider's energy hold at its meter."""
        return 1.0

    def facility_j(self, seq: Sequence) -> float:
        """Estimated energy of a request that is done [J]; NaN without an estimate."""
        guess = self.api.energy
        if guess is None:
            return math.nan
        return guess.j_per_token_in * seq.request.prompt + guess.j_per_token_out * seq.emitted


class ApiEstimator:
    """`sim.fleet.estimates.Estimator` of an API: medians, and its limits as a queue.

    Args:
        pool: whose.
    """

    def __init__(self, pool: LiveApi) -> None:
        self._api = pool.api
        link = pool.link.spec if pool.link is not None else None
        self._link_s = 0.0 if link is None else 2.0 * link.median_latency_s + link.mean_grant_s

    def times(self, loads: Loads, prompt: int, output: int, cached: int = 0) -> Times:
        """Median first token and rate, behind those that the limits hold back."""
        api = self._api
        token_s, first_s = 1.0 / api.tokens_per_s.median, api.ttft.median_s
        wait_s = 0.0
        if api.max_concurrent is not None and loads.outstanding >= api.max_concurrent:
            mean = loads.output_tokens / loads.outstanding
            ahead = loads.outstanding - api.max_concurrent + 1
            wait_s = ahead / api.max_concurrent * (first_s + mean * token_s)
        if api.requests_per_minute is not None:
            wait_s = max(wait_s, loads.waiting * SECONDS_PER_MINUTE / api.requests_per_minute)
        ttft_s = self._link_s + wait_s + first_s
        return Times(ttft_s, token_s, ttft_s + (output - 1) * token_s)

    def work(self, prompt: int, output: int, cached: int, batch: int) -> Work:
        """Its price, and its energy where that is estimated; no time of ours, and embodied carbon is unknown."""
        price, guess = self._api.price, self._api.energy
        cached = max(cached, int(self._api.cached_share * prompt))
        joules = math.nan if guess is None else guess.j_per_token_in * prompt + guess.j_per_token_out * output
        return Work(0.0, joules, math.nan if price is None else price.usd(1, prompt, cached, output), math.nan)

    def present_batch(self, loads: Loads) -> int:
        """1: whom the provider serves beside is not known."""
        return 1

    def full_batch(self, prompt: int, output: int, tpot_s: float) -> int:
        """See `present_batch`."""
        return 1

    def power_w(self, loads: Loads) -> float:
        """NaN: unknown."""
        return math.nan

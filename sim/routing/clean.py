"""Policies that go by the carbon intensity that is forecast: work waits for clean hours, or is less in dirty ones.

Both hold another router or policy and see forecasts alone, never the realised intensity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sim.accounting.forecast import Forecast, forecast_model
from sim.errors import InputError, number
from sim.fleet.leg import Leg
from sim.journey import Answer, Journey, Steps
from sim.request import Request
from sim.routing.base import FleetView
from sim.routing.candidates import Candidates, side
from sim.routing.nested import Inner
from sim.units import SECONDS_PER_HOUR

_LEVEL_KEYS = ("above_g_per_kwh", "output_factor", "quality_factor")


class Outlook:
    """The intensity that is forecast where requests may be served: the mean over sites.

    Args:
        forecast: name of a forecast (`sim.accounting.forecast.FORECASTS`), or a model of one.
        where: a kind of site or a pool; None for all.
    """

    def __init__(self, forecast: object, where: object) -> None:
        self._model = forecast_model("router.forecast", forecast)
        self._where = where

    def bind(self, fleet: FleetView) -> None:
        """Find the pools and their forecasts."""
        self.pools = Candidates(fleet.pools) if self._where is None else side(fleet, "router.where", self._where)
        known = dict(zip((pool.name for pool in fleet.pools), fleet.forecasts(self._model)))
        by_site: dict[str, Forecast] = {pool.site_name: known[pool.name] for pool in self.pools.pools}
        self._forecasts = list(by_site.values())

    def at(self, now_s: float, t_s: float) -> float:
        """Forecast at `now_s` of the intensity at `t_s` [g CO2e/kWh]; NaN where it is unknown."""
        return sum(each.at(now_s, t_s) for each in self._forecasts) / len(self._forecasts)


class TemporalShift:
    """Lets requests with a deadline wait for the cleanest hour that is forecast before it; others go on at once.

    A request waits no longer than its deadline (`Traits.deadline_s`) less a reserve allows, and begins at a random time
    of the slot it waits for, so that not all begin together. When it would begin, the forecast is read again.

    Args:
        router: router or policy that serves the requests when their time has come.
        forecast: ``persistence``, ``noisy``, ``oracle``, or a model of one's own.
        where: a kind of site or a pool whose intensity counts; None for all.
        slot_s: times that are compared are whole slots from the start of the run on [s].
        margin: factor on the latency that pools predict.
        reserve_s: time kept besides, for what will be ahead in the queue then [s].
        least_gain: share by which a later slot has to be cleaner, in [0, 1).

    Source: Wiesner et al., "Let's Wait Awhile", Middleware 2021: deferrable work in the cleanest forecast window before
    its deadline.
    """

    def __init__(
        self,
        router: object,
        forecast: object = "noisy",
        where: str | None = None,
        slot_s: float = SECONDS_PER_HOUR,
        margin: float = 2.0,
        reserve_s: float = 600.0,
        least_gain: float = 0.05,
    ) -> None:
        self._inner = Inner("router.router", router)
        self._outlook = Outlook(forecast, where)
        self._slot_s = number("router.slot_s", slot_s, "a time > 0 s", above=0.0)
        self._margin = number("router.margin", margin, "a factor of at least 1", low=1.0)
        self._reserve_s = number("router.reserve_s", reserve_s, "a time >= 0 s", low=0.0)
        self._gain = number("router.least_gain", least_gain, "a share in [0, 0.999]", low=0.0, high=0.999)
        self.balancer = self._inner.balancer

    @property
    def parts(self) -> tuple[Any, ...]:
        """The one that it holds."""
        return (self._inner.router,)

    def bind(self, fleet: FleetView) -> None:
        """Find the forecasts, and let the other look at the fleet."""
        self._outlook.bind(fleet)
        self._inner.bind(fleet)

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Wait for the time to begin, and go on as the other would."""
        if math.isfinite(request.traits.deadline_s):
            while (start_s := self._start_s(request, fleet)) > fleet.now:
                yield fleet.wait(start_s - fleet.now)
        outcome: Any = yield from self._inner.follow(request, fleet)
        return outcome  # type: ignore[no-any-return]

    def _start_s(self, request: Request, fleet: Journey) -> float:
        """When to begin, as it looks now [s]; now or before for at once."""
        now, outlook, slot_s = fleet.now, self._outlook, self._slot_s
        pools = outlook.pools.holding(request)
        if not pools:
            return now
        takes_s = max(pool.predicted_latency_s(request.prompt, request.output) for pool in pools)
        latest_s = request.arrival_s + request.traits.deadline_s - self._reserve_s - self._margin * takes_s
        best, start_s = (1.0 - self._gain) * outlook.at(now, now), now
        slot = math.floor(now / slot_s) + 1
        while slot * slot_s <= latest_s:
            intensity = outlook.at(now, slot * slot_s)
            if intensity < best:  # never where it is unknown
                best, start_s = intensity, slot * slot_s
            slot += 1
        if start_s > now:
            start_s += fleet.rng.random() * (min(start_s + slot_s, latest_s) - start_s)
        return start_s


class CarbonBrevity:
    """Asks for shorter answers while the grid is forecast to be dirty, at some loss of quality.

    Args:
        router: router or policy that serves the requests.
        levels: from clean to dirty, mappings of `above_g_per_kwh`, the forecast beyond which it holds [g CO2e/kWh],
            `output_factor` on the tokens asked for, and `quality_factor` on the chance that the answer is correct. A
            cleaner grid than the first level's leaves requests as they are.
        forecast: ``persistence``, ``noisy``, ``oracle``, or a model of one's own.
        where: a kind of site or a pool whose intensity counts; None for all.

    Source: Sprout, arXiv 2403.12900: directives for brevity, chosen by carbon intensity and their quality.
    """

    def __init__(
        self,
        router: object,
        levels: Sequence[Mapping[str, float]],
        forecast: object = "persistence",
        where: str | None = None,
    ) -> None:
        self._inner = Inner("router.router", router)
        self._outlook = Outlook(forecast, where)
        if not isinstance(levels, Sequence) or not levels:
            raise InputError("router.levels", levels, "a list of at least one level")
        self._levels = [self._level(f"router.levels[{i}]", level) for i, level in enumerate(levels)]
        bounds = [level[0] for level in self._levels]
        if sorted(set(bounds)) != bounds:
            raise InputError("router.levels", bounds, "levels with rising above_g_per_kwh")
        self.balancer = self._inner.balancer

    @staticmethod
    def _level(key: str, level: object) -> tuple[float, float, float]:
        if not isinstance(level, Mapping) or set(level) != set(_LEVEL_KEYS):
            raise InputError(key, level, "a mapping of " + ", ".join(_LEVEL_KEYS))
        above, output, quality = (level[name] for name in _LEVEL_KEYS)
        return (
            number(f"{key}.above_g_per_kwh", above, "an intensity >= 0 g/kWh", low=0.0),
            number(f"{key}.output_factor", output, "a factor in (0, 1]", above=0.0, high=1.0),
            number(f"{key}.quality_factor", quality, "a factor in [0, 1]", low=0.0, high=1.0),
        )

    @property
    def parts(self) -> tuple[Any, ...]:
        """The one that it holds."""
        return (self._inner.router,)

    def bind(self, fleet: FleetView) -> None:
        """Find the forecasts, and let the other look at the fleet."""
        self._outlook.bind(fleet)
        self._inner.bind(fleet)

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Ask for what the grid allows, and go on as the other would."""
        intensity = self._outlook.at(fleet.now, fleet.now)
        level = next((each for each in reversed(self._levels) if intensity > each[0]), None)
        if level is None:  # as where it is unknown
            outcome: Any = yield from self._inner.follow(request, fleet)
            return outcome  # type: ignore[no-any-return]
        _, output_factor, quality_factor = level
        shorter = fleet.request = request.shortened(max(1, round(request.output * output_factor)))
        outcome = yield from self._inner.follow(shorter, fleet)
        if isinstance(outcome, Leg) and outcome.ok:
            outcome = fleet.answer(fleet.stream(outcome))
        if not isinstance(outcome, Answer):
            return outcome  # type: ignore[no-any-return]
        quality = outcome.quality
        if quality is None:
            author = outcome.quality_of or outcome.parts[-1].leg
            quality = fleet.quality.correct(request, author.pool.name)
        return replace(outcome, quality=quality * quality_factor)

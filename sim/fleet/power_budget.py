"""A site's power budget: what its pools may draw in all, as limits of their xPUs.

Facility power is PUE x (xPUs + hosts) + what the building draws at any load. Hosts, static power and building are drawn
whatever is served; the rest of the budget is shared out in advance: every xPU may draw the same share of what lies
between its static power and its own limit (`power_cap_w`, or TDP). So the site keeps to its budget even if all its xPUs
are busy at once, and a busy pool cannot use what an idle one leaves. Within a step the mean counts, as for all limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sim.accounting.pue import LoadPue
from sim.accounting.signal import Signal, integral_of
from sim.errors import InputError, instance, provider
from sim.fleet.api import ApiPool
from sim.hardware.clock_law import ClockLaw
from sim.serving.limited import Limits
from sim.units import SECONDS_PER_HOUR

if TYPE_CHECKING:
    from sim.fleet.spec import Pool, Site
    from sim.hardware.timing import StepTiming

LEVELS = 64  #: limits of a budget that varies, between static power and an xPU's own limit; rounded down


@dataclass(frozen=True, slots=True)
class PowerBudget:
    """What the pools of a site may draw.

    Attributes:
        kw: facility power at most, over time [kW].
        law: what lower clocks do, for pools that do not say their own.
    """

    kw: Signal
    law: ClockLaw

    def __post_init__(self) -> None:
        provider("power_budget.kw", self.kw, ["at", "next_change", "integral"], "a Signal [kW]")
        instance("power_budget.clock_law", self.law, ClockLaw, "a ClockLaw, such as catalogue.clock_law('dvfs')")


class Share:
    """Which share of their range the xPUs of a site may use, as a signal; of a budget that varies, in whole `LEVELS`.

    Args:
        site: with a `power_budget`.
    """

    basis, source = "", "power budget"

    def __init__(self, site: Site) -> None:
        assert site.power_budget is not None
        self._kw, self._site, self._pue = site.power_budget.kw, site, site.pue
        self._floor_w = self._range_w = self._building_w = 0.0
        for pool in _pools(site):
            xpus = pool.replicas * pool.xpus_per_replica
            host_w = pool.host.power_w if pool.host is not None else 0.0
            self._floor_w += xpus * (host_w + max(pool.xpu.power.static_w, pool.xpu.idle_w))
            self._range_w += xpus * (highest_w(pool) - pool.xpu.power.static_w)
            if isinstance(site.pue, LoadPue):
                self._building_w += site.pue.fixed_w(xpus * (host_w + pool.xpu.tdp_w))
        self.varies = math.isfinite(self.next_change(0.0))

    def at(self, t_s: float) -> float:
        """The share at a time, in (0, 1].

        Raises:
            InputError: the budget is below what the site draws at any clock.
        """
        pue = self._ratio(t_s)
        kw = self._kw.at(t_s)
        share = ((1e3 * kw - self._building_w) / pue - self._floor_w) / self._range_w
        if self.varies:
            share = math.floor(share * LEVELS + 1e-9) / LEVELS
        if share <= 0.0:
            least = self._building_w + pue * (self._floor_w + self._range_w / LEVELS * self.varies)
            when = f" at {t_s / SECONDS_PER_HOUR:.4g} h" if self.varies else ""
            accepted = f"more than {least / 1e3:.4g} kW{when}, which the site's xPUs and hosts draw at any clock"
            raise InputError(f"sites.{self._site.name}.power_budget", round(kw, 6), accepted)
        return min(share, 1.0)

    def next_change(self, t_s: float) -> float:
        """When it may change [s]."""
        changes: float = getattr(self._pue, "next_change", lambda t: math.inf)(t_s)
        return min(changes, self._kw.next_change(t_s))

    def integral(self, t0_s: float, t1_s: float) -> float:
        """Integral over [t0_s, t1_s] [s]."""
        return integral_of(self, t0_s, t1_s)

    def _ratio(self, t_s: float) -> float:
        """Facility power per IT power, beside what the building draws at any load."""
        if isinstance(self._pue, LoadPue):
            return self._pue.slope
        return self._pue if isinstance(self._pue, (int, float)) else self._pue.at(t_s)


def _pools(site: Site) -> list[Pool]:
    """Its pools; APIs, which nobody here powers, have no place at a site with a budget."""
    return [pool for pool in site.pools if not isinstance(pool, ApiPool)]


def highest_w(pool: Pool) -> float:
    """What an xPU of a pool may draw without a budget [W]."""
    return pool.xpu.tdp_w if pool.power_cap_w is None else pool.power_cap_w


def limited(pool: Pool, share: float, law: ClockLaw) -> Pool:
    """The pool with its xPUs at a share of their range; it stays as it is at 1."""
    static_w = pool.xpu.power.static_w
    if share >= 1.0:
        return pool
    cap_w = static_w + share * (highest_w(pool) - static_w)
    return replace(pool, power_cap_w=cap_w, clock_law=pool.clock_law or law)


def budgeted(site: Site, until_s: float) -> Iterator[Pool | ApiPool]:
    """The pools of a site under its budget, as it is when a run begins.

    Args:
        site: any; without a budget its pools come back as they are.
        until_s: horizon of the run, up to which a budget that varies is checked, or infinity [s].

    Raises:
        InputError: the budget is too small, or varies over a pool that cannot follow.
    """
    if site.power_budget is None:
        yield from site.pools
        return
    share = Share(site)
    t = 0.0
    while share.varies and t < until_s < math.inf:
        share.at(t)
        t = share.next_change(t)
    for pool in _pools(site):
        if share.varies and pool.dp > 1:
            accepted = "1 at a site whose power budget varies: data-parallel ranks keep one limit"
            raise InputError(f"pools.{pool.name}.dp", pool.dp, accepted)
        yield limited(pool, share.at(0.0), site.power_budget.law)


def limits_of(pool: Pool, site: Site, timing: Callable[[Pool], StepTiming]) -> Limits | None:
    """Limits of a pool's engines that change over time; None where they do not.

    Args:
        timing: makes what steps of a pool's replica cost.
    """
    if site.power_budget is None or not (share := Share(site)).varies:
        return None
    own = next(each for each in _pools(site) if each.name == pool.name)
    law = site.power_budget.law
    return Limits(share, lambda level: timing(limited(own, level, law)))

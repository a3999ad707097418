"""What is refused before a run: parts that do not go together, settings out of range, signals that end too early.

Every function raises `InputError`, which names the key.
"""

from __future__ import annotations

from sim.errors import InputError, instance, number, provider
from sim.fleet.spec import Fleet
from sim.routing.base import Router
from sim.routing.nested import check_nesting
from sim.workload.base import Workload


def check_parts(fleet: Fleet, workload: Workload, router: Router) -> None:
    """Refuse parts that are none, or that do not go together."""
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


def check_settings(
    warmup_s: float, horizon_s: float | None, drain: bool, oversize: str, bin_s: float | None, seed: int
) -> None:
    """Refuse settings of a run that cannot be used."""
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


def check_signals(fleet: Fleet, horizon_s: float | None) -> None:
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

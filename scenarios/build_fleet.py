"""The `fleet` group to a `Fleet`: sites, pools and links, with what the catalogue knows about the parts they name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

from scenarios.build_accounts import embodied_of, host_of, shares_of
from scenarios.build_api import api_pool
from scenarios.build_cost import cost_of
from scenarios.build_on_site import on_site_of, power_budget_of
from scenarios.build_plan import presence_of
from scenarios.build_site import SITE_KEYS, intensity_of, market_of, pue_of, water_of
from scenarios.entries import Catalogue
from scenarios.schema import Check, Section, anything, boolean, integer, list_of, number, one_of, renamed, text, within
from scenarios.targets import instantiate
from sim.accounting.signal import Unknown
from sim.errors import InputError
from sim.fleet.api import ApiPool
from sim.fleet.balancers import balancer_of
from sim.fleet.engine_settings import EngineSettings
from sim.fleet.link import CLIENT, Link
from sim.fleet.outages import check_outages
from sim.fleet.power_budget import Share
from sim.fleet.spec import SITE_KINDS, Fleet, Pool, Site
from sim.hardware.layers import layers_of
from sim.hardware.model import Model
from sim.hardware.sizing import check_fit
from sim.routing.base import Router
from sim.units import BYTES_PER_VALUE

SINGLE = "single"  #: name of site and pool where a fleet is one pool, written without `sites`
#: keys of a link that are no plain numbers
_LINK_CHECKS: dict[str, Check[Any]] = {
    "shared": boolean,
    "outages": check_outages,
    "cells": integer(1),
    "latency": anything,
    "medium": text,
}
_PRECISION: Check[str] = one_of(*BYTES_PER_VALUE)


def build_fleet(
    section: Section,
    catalogue: Catalogue,
    basis: str = "lca",
    start_utc: str | None = None,
    plugins: Collection[str] = (),
    network_energy: Mapping[str, float] = MappingProxyType({}),
) -> Fleet:
    """Make the fleet of a configuration's `fleet` group.

    Args:
        section: with `sites` and `links`; or the keys of one site and one pool side by side, for a fleet of one pool.
        catalogue: where xPUs, models, grids, links and hosts come from.
        basis, start_utc: for grids that do not say their own.
        plugins: packages that the user trusts, for latencies of their own.
        network_energy: energy of a byte by a link's medium, for links that do not say theirs [J/byte].
    """
    section.get("about", anything, None)
    if "sites" not in section.values:
        return _single(section, catalogue, basis, start_utc, plugins)
    sites = []
    for name, site in section.children("sites").items():
        pools = tuple(_pool(key, pool, catalogue, start_utc, plugins) for key, pool in site.children("pools").items())
        sites.append(_site(name, site, pools, catalogue, basis, start_utc, plugins))
        site.finish()
    links = tuple(
        _link(name, link, catalogue, basis, start_utc, plugins, network_energy)
        for name, link in section.children("links").items()
    )
    section.finish()
    with renamed("links", section.path("links")):
        made = Fleet(tuple(sites), links)
    _check_reach(sites, links, section.path("links"))
    return made


def check_pools(fleet: Fleet, router: Router, key: str, single: bool) -> None:
    """Check before anything runs that every pool holds its model and has a balancer, and name the key that fails.

    Args:
        fleet: what `build_fleet` made.
        router: may say how pools balance.
        key: dotted name of its group.
        single: whether the group was written without `sites`.
    """
    for site in fleet.sites:
        for pool in site.pools:
            with renamed(f"pools.{pool.name}", key if single else f"{key}.sites.{site.name}.pools.{pool.name}"):
                if isinstance(pool, ApiPool):
                    continue
                check_fit(pool)
                balancer_of(pool, router)


def _single(
    section: Section, catalogue: Catalogue, basis: str, start_utc: str | None, plugins: Collection[str]
) -> Fleet:
    site = Section({key: value for key, value in section.values.items() if key in SITE_KEYS}, section.key)
    pool = Section({k: v for k, v in section.values.items() if k not in (*SITE_KEYS, "about")}, section.key)
    pools = (_pool(SINGLE, pool, catalogue, start_utc, plugins),)
    return Fleet((_site(SINGLE, site, pools, catalogue, basis, start_utc, plugins),))


def _site(
    name: str,
    site: Section,
    pools: tuple[Pool | ApiPool, ...],
    catalogue: Catalogue,
    basis: str,
    start_utc: str | None,
    plugins: Collection[str],
) -> Site:
    kind = site.need("kind", one_of(*SITE_KINDS))
    with within(site.key):
        pue = pue_of(site, catalogue, start_utc)
        bought = bool(pools) and all(isinstance(pool, ApiPool) for pool in pools)
        dark = bought and site.get("grid", anything, None) is None  # where a provider computes may be unknown
        intensity = Unknown() if dark else intensity_of(site, catalogue, basis, start_utc)
        market = market_of(site, basis)
        water = water_of(site, catalogue)
        on_site = on_site_of(site, catalogue, start_utc, plugins)
        budget = power_budget_of(site, catalogue, start_utc, on_site)
    made = Site(name, kind, pools, intensity, pue, market, water, on_site, budget)
    if budget is not None:
        with renamed(f"sites.{name}", site.key):
            Share(made).at(0.0)  # refused before anything runs
    return made


def _model(pool: Section, catalogue: Catalogue) -> Model:
    """The model of a pool, or those of its layers that the pool has."""
    model = catalogue.model(pool.need("model", text), pool.path("model"))
    layers = pool.get("layers", anything, None)
    return model if layers is None else layers_of(model, layers, pool.path("layers"))


def _pool(
    name: str, pool: Section, catalogue: Catalogue, start_utc: str | None, plugins: Collection[str]
) -> Pool | ApiPool:
    pool.get("about", anything, None)
    if pool.values.get("api") is not None:
        return api_pool(name, pool, catalogue, plugins)
    xpu, xpu_entry = catalogue.xpu(pool.need("xpu", text), pool.path("xpu"))
    xpu = catalogue.on_stack(xpu, pool.get("stack", text, None), pool.path("stack"))
    with within(pool.key):
        host = host_of(pool, catalogue)
        engine = _engine(pool.child("engine"))
        cost = cost_of(pool, xpu, xpu_entry, host, catalogue, start_utc)
        embodied = embodied_of(pool, xpu, xpu_entry)
        shares = shares_of(pool)
    draft = pool.get("draft", text, None)
    with renamed(f"pools.{name}", pool.key):
        made = Pool(
            name=name,
            model=_model(pool, catalogue),
            draft=catalogue.model(draft, pool.path("draft")) if draft is not None else None,
            xpu=xpu,
            replicas=pool.get("replicas", integer(1), 1),
            tp=pool.get("tp", integer(1), 1),
            pp=pool.get("pp", integer(1), 1),
            dp=pool.get("dp", integer(1), 1),
            expert_parallel=pool.get("expert_parallel", boolean, False),
            interconnect=catalogue.interconnect(pool.get("interconnect", text, None), pool.path("interconnect")),
            prefill_replicas=pool.get("prefill_replicas", integer(0), 0),
            kv_link=catalogue.interconnect(pool.get("kv_link", text, None), pool.path("kv_link")),
            node_xpus=pool.get("node_xpus", integer(1), None),
            internode=catalogue.interconnect(pool.get("internode", text, None), pool.path("internode")),
            precision=pool.get("precision", _PRECISION, "bf16"),
            kv_precision=pool.get("kv_precision", _PRECISION, None),
            engine=engine,
            host=host,
            cost=cost,
            embodied=embodied,
            embodied_shares=shares,
            balancer=pool.get("balancer", text, None),
            outages=pool.get("outages", check_outages, ()),
            **_power(pool, catalogue),
            **presence_of(pool, start_utc),
        )
    pool.finish()
    return made


def _power(pool: Section, catalogue: Catalogue) -> dict[str, Any]:
    """Cap and limit of the clock of a pool's xPUs, and what lower clocks do."""
    cap_w = pool.get("power_cap_w", number("a power > 0 W, or null", above=0.0), None)
    limit = pool.get("clock_limit", number("a share of the clock in (0, 1]", above=0.0, high=1.0), 1.0)
    law = pool.get("clock_law", text, "dvfs")
    if cap_w is None and limit == 1.0:
        return {}
    return {
        "power_cap_w": cap_w,
        "clock_limit": limit,
        "clock_law": catalogue.clock_law(law, pool.path("clock_law")),
    }


def _engine(engine: Section) -> EngineSettings:
    whole, seconds = integer(1), number("a time >= 0 s", low=0.0)
    default = EngineSettings()
    made = EngineSettings(
        max_num_seqs=engine.get("max_num_seqs", whole, default.max_num_seqs),
        max_num_batched_tokens=engine.get("max_num_batched_tokens", whole, default.max_num_batched_tokens),
        block_size=engine.get("block_size", whole, default.block_size),
        kv_blocks=engine.get("kv_blocks", whole, None),
        gpu_memory_utilization=engine.get(
            "gpu_memory_utilization", number("a share in (0, 1]", above=0.0, high=1.0), default.gpu_memory_utilization
        ),
        max_model_len=engine.get("max_model_len", whole, None),
        async_scheduling=engine.get("async_scheduling", boolean, default.async_scheduling),
        sorted_sampling=engine.get("sorted_sampling", boolean, default.sorted_sampling),
        penalized_sampling=engine.get("penalized_sampling", boolean, default.penalized_sampling),
        front_end_s=engine.get("front_end_s", seconds, default.front_end_s),
        tokenize_s=engine.get("tokenize_s", seconds, default.tokenize_s),
        tokenize_s_per_token=engine.get("tokenize_s_per_token", seconds, default.tokenize_s_per_token),
        front_end_workers=engine.get("front_end_workers", whole, default.front_end_workers),
        detokenize_s=engine.get("detokenize_s", seconds, default.detokenize_s),
        prefix_caching=engine.get("prefix_caching", boolean, default.prefix_caching),
        disable_hybrid_kv_cache_manager=engine.get(
            "disable_hybrid_kv_cache_manager", boolean, default.disable_hybrid_kv_cache_manager
        ),
        scheduler=engine.get("scheduler", text, default.scheduler),
        batching=engine.get("batching", text, default.batching),
        swap_bytes=engine.get("swap_bytes", number("a size >= 0 bytes", low=0.0), default.swap_bytes),
        swap_bytes_per_s=engine.get(
            "swap_bytes_per_s", number("a speed > 0 bytes/s", above=0.0), default.swap_bytes_per_s
        ),
        adapter_slots=engine.get("adapter_slots", integer(0), default.adapter_slots),
        adapter_load_s=engine.get("adapter_load_s", number("a time >= 0 s", low=0.0), default.adapter_load_s),
        offload_bytes=engine.get("offload_bytes", number("a size >= 0 bytes", low=0.0), default.offload_bytes),
        offload_bytes_per_s=engine.get(
            "offload_bytes_per_s", number("a speed > 0 bytes/s", above=0.0), default.offload_bytes_per_s
        ),
        andes_quantum_s=engine.get("andes_quantum_s", number("a time > 0 s", above=0.0), default.andes_quantum_s),
        andes_preemptions=engine.get("andes_preemptions", integer(0), default.andes_preemptions),
        speculative_tokens=engine.get("speculative_tokens", integer(0), default.speculative_tokens),
        speculative_method=engine.get("speculative_method", text, default.speculative_method),
        acceptance_rate=engine.get("acceptance_rate", number("a probability in [0, 1]", low=0.0, high=1.0), None),
        padding=tuple(engine.get("padding", list_of(whole), [])),
    )
    engine.finish()
    return made


def _check_reach(sites: Collection[Site], links: Collection[Link], key: str) -> None:
    """Refuse a site that was forgotten: others have client links, it is no device, and no link leads there."""
    reached = sorted({link.target for link in links if link.source == CLIENT})
    for site in sites:
        joined = any(site.name in (link.source, link.target) for link in links)
        if reached and site.pools and site.kind != "device" and not joined:
            accepted = f"a link to {site.name} as well, from {CLIENT} or a site; or none at all, for no network"
            raise InputError(key, reached, accepted)


def build_network_energy(section: Section) -> dict[str, float]:
    """Energy of a byte by medium, as far as it is known [J/byte]."""
    known = {}
    for medium in section.values:
        value = section.get(medium, anything, None)
        if isinstance(value, Mapping):
            value = value.get("value")
        if value is not None:
            known[medium] = number("an energy >= 0 J/byte, or null", low=0.0)(section.path(medium), value)
    return known


def _link(
    name: str,
    link: Section,
    catalogue: Catalogue,
    basis: str,
    start_utc: str | None,
    plugins: Collection[str],
    network_energy: Mapping[str, float],
) -> Link:
    """A link: the entry that `type` names, of links or of interconnects, and any field set beside it."""
    link.get("about", anything, None)
    values: dict[str, Any] = {}
    kind = link.get("type", text, None)
    apart = ("name", "source", "target", "intensity", "source_note")
    own = [field.name for field in fields(Link) if field.name not in apart]
    if kind is not None:
        entry = catalogue.link(kind, link.path("type"))
        values = {key: entry[key] for key in own if entry.get(key) is not None}
        values["source_note"] = kind
    source, target = link.get("source", text, CLIENT), link.need("target", text)
    given = {key: link.get(key, _LINK_CHECKS.get(key, number("a number >= 0", low=0.0)), None) for key in own}
    if given["latency"] is not None:
        for key in ("latency_s", "latency_sigma"):  # what the entry says instead
            values.pop(key, None)
        with renamed("latency", link.path("latency")):
            given["latency"] = instantiate(given["latency"], link.path("latency"), plugins)
    for key, value in given.items():
        if value is not None:
            values[key] = value
            values["source_note"] = f"{kind or 'a link'}, {key} given in the configuration"
    if link.get("grid", anything, None) is not None:
        values["intensity"] = intensity_of(link, catalogue, basis, start_utc)
    link.finish()
    if values.get("energy_j_per_byte") is None:
        values["energy_j_per_byte"] = network_energy.get(values.get("medium", ""))
    with renamed(f"links.{name}", link.key):
        return Link(name, source, target, **values)

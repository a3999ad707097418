"""An API pool from configuration: an entry of conf/api, which knows prices and latency, and what is set beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from scenarios.entries import Catalogue
from scenarios.schema import Check, Section, anything, integer, number, renamed, text
from scenarios.targets import instantiate
from sim.accounting.api_price import ApiPrice
from sim.errors import InputError
from sim.fleet.api import ApiPool, EnergyEstimate, OutputRate
from sim.fleet.latency import Latency, LogNormal
from sim.fleet.outages import check_outages
from sim.hardware.catalogue import Entry

_USD: Check[float] = number("a price >= 0 USD, or null", low=0.0)
_PRICES = ("usd_per_mtok_in", "usd_per_mtok_out", "usd_per_mtok_cached_in", "usd_per_request")


def api_pool(name: str, pool: Section, catalogue: Catalogue, plugins: Collection[str]) -> ApiPool:
    """A pool with the key `api`, the id of an entry; every value of the entry can be set beside it."""
    api = pool.need("api", text)
    entry = catalogue.entry("api", api, pool.path("api"))
    known, origins = entry.values, entry.provenance
    model_id = pool.get("model", text, known.get("model"))
    model = None if model_id is None else catalogue.model(model_id, pool.path("model"))
    with renamed(f"pools.{name}", pool.key):
        made = ApiPool(
            name=name,
            provider=str(known.get("provider", api)),
            model_id=str(known.get("serves", api)) if model is None else model.id,
            price=_price(pool, entry),
            ttft=_ttft(pool, known, plugins),
            tokens_per_s=_rate(pool, known),
            max_tokens=pool.get("max_tokens", integer(2), known.get("max_tokens")),
            model=model,
            max_concurrent=pool.get("max_concurrent", integer(1), None),
            requests_per_minute=pool.get("requests_per_minute", number("a rate > 0, or null", above=0.0), None),
            cached_share=pool.get("cached_share", number("a share in [0, 1]", low=0.0, high=1.0), 0.0),
            energy=_energy(pool),
            outages=pool.get("outages", check_outages, ()),
            latency_kind=_ground(pool, origins),
        )
    pool.finish()
    return made


def _price(pool: Section, entry: Entry) -> ApiPrice | None:
    """The entry's prices, or those of the configuration beside it."""
    given = {key: pool.get(key, _USD, None) for key in _PRICES}
    given = {key: value for key, value in given.items() if value is not None}
    noted = {name: pool.get(name, text, None) for name in ("as_of", "source")}
    if given:
        noted = {"as_of": noted["as_of"] or "", "source": noted["source"] or "given in the configuration"}
    return price_of(entry, given, **noted)


def price_of(
    entry: Entry, given: Mapping[str, float] = MappingProxyType({}), as_of: str | None = None, source: str | None = None
) -> ApiPrice | None:
    """Prices of an entry of conf/api; None where that of a prompt or output token is unknown.

    Args:
        entry: the price list.
        given: prices in place of its own; as_of, source: of these, or None for the entry's.
    """
    prices = {key: given.get(key, entry.values.get(key)) for key in _PRICES}
    if prices["usd_per_mtok_in"] is None or prices["usd_per_mtok_out"] is None:
        return None
    if as_of is None:
        as_of = str(entry.values.get("as_of", ""))
    if source is None:
        source = entry.provenance[_PRICES[0]][1]
    known = {key: value for key, value in prices.items() if value is not None}
    return ApiPrice(**known, as_of=as_of, source=source)


def _ttft(pool: Section, known: Mapping[str, Any], plugins: Collection[str]) -> Latency:
    """{median_s, sigma}, or a `_target_` of a latency, as links have them; null for the entry's."""
    given = pool.get("ttft", anything, None)
    key = pool.path("ttft")
    if isinstance(given, Mapping) and "_target_" in given:
        with renamed("latency", key):
            made: Latency = instantiate(given, key, plugins)
            return made
    section = Section({} if given is None else given, key)
    median = section.get("median_s", number("a time >= 0 s", low=0.0), known.get("ttft_median_s"))
    sigma = section.get("sigma", number("a number >= 0", low=0.0), known.get("ttft_sigma", 0.0))
    section.finish()
    if median is None:
        raise InputError(section.path("median_s"), None, "a time >= 0 s: the entry does not know it")
    return LogNormal(median, sigma or 0.0)


def _rate(pool: Section, known: Mapping[str, Any]) -> OutputRate:
    """A number, or {median, sigma} [tokens/s]; null for the entry's."""
    given = pool.get("tokens_per_s", anything, None)
    values = given if isinstance(given, Mapping) else {} if given is None else {"median": given, "sigma": 0.0}
    section = Section(values, pool.path("tokens_per_s"))
    speed = number("a speed > 0 tokens/s", above=0.0)
    median = section.get("median", speed, known.get("tokens_per_s_median"))
    sigma = section.get("sigma", number("a number >= 0", low=0.0), known.get("tokens_per_s_sigma", 0.0))
    section.finish()
    if median is None:
        raise InputError(section.path("median"), None, "a speed > 0 tokens/s: the entry does not know it")
    return OutputRate(median, sigma or 0.0)


def _energy(pool: Section) -> EnergyEstimate | None:
    """{j_per_token_in, j_per_token_out, source}, or null: unknown."""
    given = pool.get("energy", anything, None)
    if given is None:
        return None
    section = Section(given, pool.path("energy"))
    joules = number("an energy > 0 J per token", above=0.0)
    made = EnergyEstimate(
        section.need("j_per_token_in", joules), section.need("j_per_token_out", joules), section.need("source", text)
    )
    section.finish()
    return made


def _ground(pool: Section, origins: Mapping[str, tuple[str, str, str]]) -> str:
    """Kind of the constants that latency comes from."""
    own = pool.values.get("ttft") is not None and pool.values.get("tokens_per_s") is not None
    return "given" if own else origins["ttft_median_s"][2]

"""What a provider charges for tokens: an API's price list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sim.accounting.cost import CostRates
from sim.errors import InputError, number
from sim.units import TOKENS_PER_MTOK

_PRICE = "a price >= 0 USD per million tokens"


@dataclass(frozen=True, slots=True)
class ApiPrice:
    """Prices by tokens; nothing is owed for hours.

    Attributes:
        usd_per_mtok_in, usd_per_mtok_out: prompt and output tokens [USD per million].
        usd_per_mtok_cached_in: prompt tokens that the provider's cache holds; None charges them like others.
        usd_per_request: besides, for every request that was sent [USD].
        as_of, source: when and by whom the price was asked.
        currency: ``USD``.
    """

    usd_per_mtok_in: float
    usd_per_mtok_out: float
    usd_per_mtok_cached_in: float | None = None
    usd_per_request: float = 0.0
    as_of: str = ""
    source: str = ""
    currency: str = "USD"

    def __post_init__(self) -> None:
        number("usd_per_mtok_in", self.usd_per_mtok_in, _PRICE, low=0.0)
        number("usd_per_mtok_out", self.usd_per_mtok_out, _PRICE, low=0.0)
        number("usd_per_request", self.usd_per_request, "a price >= 0 USD", low=0.0)
        if self.usd_per_mtok_cached_in is not None:
            number("usd_per_mtok_cached_in", self.usd_per_mtok_cached_in, f"{_PRICE}, or null", low=0.0)
        if self.currency != "USD":
            raise InputError("currency", self.currency, "USD; convert other prices and say when in as_of")

    def usd(self, requests: Any, prompt: Any, cached: Any, output: Any) -> Any:
        """Price of requests that were sent, and their tokens [USD]; numbers or arrays. `cached` is part of `prompt`."""
        known = self.usd_per_mtok_cached_in
        cheap = self.usd_per_mtok_in if known is None else known
        tokens = self.usd_per_mtok_in * (prompt - cached) + cheap * cached + self.usd_per_mtok_out * output
        return self.usd_per_request * requests + tokens / TOKENS_PER_MTOK

    def rates(self) -> CostRates:
        """Nothing per second and joule; the price in words."""
        cached = "" if self.usd_per_mtok_cached_in is None else f", {self.usd_per_mtok_cached_in:g} cached in"
        each = f", {self.usd_per_request:g} USD a request" if self.usd_per_request else ""
        text = f"API at {self.usd_per_mtok_in:g} in{cached}, {self.usd_per_mtok_out:g} out USD per million tokens{each}"
        where = ", ".join(part for part in (self.as_of or "date not recorded", self.source) if part)
        return CostRates(0.0, 0.0, f"{text} ({where})")

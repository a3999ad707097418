"""The terms on which a fleet serves, from configuration."""

from __future__ import annotations

from analysis.economics import Terms
from scenarios.schema import Check, Section, boolean, number

_USD: Check[float] = number("an amount >= 0 USD, or null", low=0.0)


def terms_of(economics: Section) -> Terms:
    """Prices of tokens and requests, of carbon and of missed SLOs; all null by default.

    Raises:
        InputError: a key or value cannot be used.
    """
    made = Terms(
        economics.get("usd_per_mtok_in", _USD, None),
        economics.get("usd_per_mtok_out", _USD, None),
        economics.get("usd_per_request", _USD, None),
        economics.get("carbon_usd_per_t", _USD, None),
        economics.get("carbon_in_cost", boolean, False),
        economics.get("slo_violation_usd", _USD, None),
    )
    economics.finish()
    return made

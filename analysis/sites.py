"""Sites with a solar plant, a battery or a contract of their own: the summary's section, and lines about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sim.results import Result


def of(result: Result) -> dict[str, Any]:
    """`by_site` of the summary: energy balance, peaks, carbon with and without what the site has, and cost."""
    return {
        site.name: {
            "energy_kwh": dict(site.kwh),
            "self_supplied": 1.0 - site.kwh["imported"] / site.kwh["load"] if site.kwh["load"] > 0.0 else None,
            "peak_kw": dict(site.peak_kw),
            "carbon_kg": dict(site.carbon_kg),
            "matched_share": None if site.matched_share is None else dict(site.matched_share),
            "cost_usd": site.cost_usd,
        }
        for site in result.sites
    }


def lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """A sentence or two about each site."""
    for name, site in summary.get("by_site", {}).items():
        if "least_below_budget" in site["peak_kw"]:
            peak = site["peak_kw"]
            yield (
                f"site {name}: highest mean power of a step {peak['load']:.4g} kW, at least "
                f"{peak['least_below_budget']:.3g} kW below its budget"
            )
        kwh, carbon, share = site["energy_kwh"], site["carbon_kg"], site["self_supplied"]
        if not kwh["solar"] and not kwh["charged"] and site["matched_share"] is None:
            continue  # all of it comes from the grid
        part = "" if share is None else f", {100.0 * (1.0 - share):.3g} % of it"
        yield (
            f"site {name}: load {kwh['load']:.4g} kWh, imported {kwh['imported']:.4g} kWh{part}; solar "
            f"{kwh['solar']:.4g} kWh, of it curtailed {kwh['curtailed']:.3g} and exported {kwh['exported']:.3g} kWh; "
            f"battery {kwh['charged']:.3g} kWh in, {kwh['discharged']:.3g} kWh out"
        )
        grams = [carbon[key] for key in ("grid_alone", "operational", "operational_market")]
        texts = ["unknown" if kg is None else f"{kg:.4g} kg" for kg in grams]
        matched = site["matched_share"]
        bought = "" if matched is None else f", {100.0 * matched['hourly']:.3g} % of imports matched by the hour"
        yield f"  operational carbon {texts[1]}, on the grid alone {texts[0]}; market-based {texts[2]}{bought}"

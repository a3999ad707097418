"""Sections of the report about who caused what, and about the five resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from analysis.economics import lines as terms_lines
from analysis.table import NOTHING, UNKNOWN, number, percent

_WHO = {"by_tenant": "tenant", "by_slo_class": "SLO class", "by_model": "model"}
_COMMON = {
    "idle": "idle",
    "boot": "boot",
    "network": "network",
    "on_site": "solar plant and battery",
    "cut_off": "steps cut off at the end",
}
_AMOUNTS = (("energy_kwh", 1e3), ("carbon_operational_kg", 1e3), ("carbon_embodied_kg", 1e3), ("cost_usd", 1.0))
_ENERGY_OF_SITES = {
    "load": "load [kWh]",
    "imported": "imported [kWh]",
    "solar": "solar [kWh]",
    "curtailed": "of it curtailed [kWh]",
    "exported": "of it exported [kWh]",
    "charged": "into the battery [kWh]",
    "discharged": "out of the battery [kWh]",
    "battery_losses": "lost there [kWh]",
}
_PEAKS_OF_SITES = {
    "load": "highest load of a step [kW]",
    "import": "highest import of a step [kW]",
    "least_below_budget": "least below the power budget [kW]",
}
_CARBON_OF_SITES = {
    "grid_alone": "operational CO2e on the grid alone [kg]",
    "operational": "operational CO2e [kg]",
    "solar_life_cycle": "of it life cycle of the solar plant [kg]",
    "operational_market": "market-based CO2e [kg]",
    "embodied_battery": "embodied CO2e of the battery [kg]",
}
_SCI = {
    "request": "request",
    "output_token": "output token",
    "slo_request": "request within its SLO",
    "quality_answer": "answer, weighted by quality",
}


def attribution(table: Mapping[str, Any], sci: Mapping[str, Any]) -> str:
    """Shares of tenants, classes and models, then common parts and the total; and carbon per functional unit."""
    head = ["whose", "requests", "output tokens", "Wh", "operational g", "embodied g", "USD", "% of energy"]
    whole, body = table["total"], []
    for key, what in _WHO.items():
        for name, row in table[key].items():
            cells = [f"{what} {name}", f"{row['requests']:,}", f"{row['output_tokens']:,}", *_amounts(row, whole)]
            body.append(cells)
    body += [
        [text, "", "", *_amounts(table["common"][part], whole)]
        for part, text in _COMMON.items()
        if part in table["common"]
    ]
    body.append(["total", "", "", *_amounts(whole, whole)])
    note = (
        "Work that requests took of busy replicas. In each column the shares of all tenants, or of all classes, or of "
        "all models, and the common parts below them sum to the total."
    )
    scores = [[_SCI[unit], _grams(score)] for unit, score in sci["g_per_unit"].items()]
    score_table = _table(["functional unit", "g CO2e each (SCI)"], scores)
    return f"<p>{note}</p>\n{_table(head, body)}\n{score_table}\n<p class='note'>{escape(sci['boundary'])}</p>"


def five(resources: Mapping[str, Any]) -> str:
    """Compute, memory, energy, money and network, absolute and per 1,000 output tokens."""
    body = [
        [group, name, UNKNOWN if row["absolute"] is None else number(row["absolute"]), number(row["per_1000_tokens"])]
        for group, lines in resources.items()
        for name, row in lines.items()
    ]
    return _table(["resource", "what", "in all", "per 1,000 output tokens"], body)


def economics(summary: Mapping[str, Any]) -> str:
    """Revenue, cost and what is owed by the terms given."""
    terms = {key: value for key, value in summary["economics"]["terms"].items() if value is not None}
    said = ", ".join(f"{key} {value}" for key, value in terms.items())
    return _table(["", ""], terms_lines(summary)) + f"<p class='note'>On these terms: {escape(said)}.</p>"


def _amounts(row: Mapping[str, float | None], whole: Mapping[str, float | None]) -> list[str]:
    cells = [UNKNOWN if row[key] is None else number((row[key] or 0.0) * unit) for key, unit in _AMOUNTS]
    part, total = row["energy_kwh"], whole["energy_kwh"]
    return [*cells, percent(part / total) if part is not None and total else NOTHING]


def _grams(score: float | None) -> str:
    return UNKNOWN if score is None else number(score)


def _table(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in body)
    table = f'<table class="plain">\n<thead><tr>{names}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>'
    return f'<div class="scroll">{table}</div>'


def sites(by_site: Mapping[str, Any]) -> str:
    """Energy balance of sites with a plant or a power budget of their own, and its carbon with and without."""
    names = list(by_site)
    kwh = [
        [text, *(number(by_site[name]["energy_kwh"][key]) for name in names)] for key, text in _ENERGY_OF_SITES.items()
    ]
    peaks = [[text, *(_peak(by_site[name], key) for name in names)] for key, text in _PEAKS_OF_SITES.items()]
    carbon = [
        [text, *(_kilograms(by_site[name]["carbon_kg"][key]) for name in names)]
        for key, text in _CARBON_OF_SITES.items()
    ]
    note = (
        "In every step load, charging, exports and curtailment are what solar, battery and grid delivered. What the "
        "plant changes is the part of its own in the totals above; shares of requests stay at the grid's intensity."
    )
    return f"<p>{note}</p>\n{_table(['site', *names], [*kwh, *peaks, *carbon])}"


def _peak(site: Mapping[str, Any], key: str) -> str:
    return number(site["peak_kw"][key]) if key in site["peak_kw"] else NOTHING


def _kilograms(kg: float | None) -> str:
    return UNKNOWN if kg is None else number(kg)

"""Software Carbon Intensity: carbon of a run per functional unit. Follows SCI v1.1 (ISO/IEC 21031).

SCI = (E I + M) / R: E is energy of everything provisioned, idle time, host and PUE included; I the location-based
intensity of the grid, so that market-based measures and offsets do not enter; M the embodied carbon of the time and
resources reserved; R a count of functional units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: functional unit -> what it counts
UNITS = {
    "request": "completed requests",
    "output_token": "output tokens of completed requests",
    "slo_request": "requests that met their SLO, those counted standing for all",
    "quality_answer": "answers weighted by their quality",
}


def sci(energy_kwh: float, intensity_g_per_kwh: float, embodied_g: float, units: float) -> float | None:
    """(E I + M) / R [g CO2e per unit]; None where there are no units.

    Args:
        energy_kwh: E [kWh]; intensity_g_per_kwh: I [g/kWh]; embodied_g: M, see `reserved_g` [g]; units: R.

    Source: Green Software Foundation, SCI specification v1.1.
    """
    return (energy_kwh * intensity_g_per_kwh + embodied_g) / units if units > 0.0 else None


def reserved_g(total_g: float, reserved_s: float, lifetime_s: float, reserved: float, of_all: float) -> float:
    """M = TE x (TiR / EL) x (RR / ToR): embodied carbon of what was reserved, for as long as it was [g].

    Source: Green Software Foundation, SCI specification v1.1.
    """
    return total_g * (reserved_s / lifetime_s) * (reserved / of_all)


def of(total: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of a run by functional unit [g CO2e], with the boundary in words; None where a part is unknown.

    Args:
        total: the summary's section `total`.
    """
    carbon, energy_kwh, requests = total["carbon_kg"], total["energy_kwh"], total["requests"]
    operational, embodied = carbon["operational"], carbon["embodied"]
    done, quality = requests["completed"], total.get("answer_quality")
    counts = {
        "request": done,
        "output_token": total["output_tokens"],
        # both ends of the run are provisioned for all requests: those counted stand for all
        "slo_request": None if total["slo_attainment"] is None else total["slo_attainment"] * requests["arrived"],
        "quality_answer": None if quality is None else quality * done,
    }
    scores: dict[str, float | None] = {}
    for unit, count in counts.items():
        known = count is not None and operational is not None and embodied is not None and energy_kwh
        mean = 1e3 * operational / energy_kwh if known else 0.0
        scores[unit] = sci(energy_kwh, mean, 1e3 * embodied, count) if known else None
    boundary = "; ".join(total["embodied_boundary"]) or "embodied carbon unknown"
    missing = f"; left out: {'; '.join(total['incomplete'])}" if total["incomplete"] else ""
    return {
        "g_per_unit": scores,
        "boundary": "Follows SCI v1.1. Provisioned xPUs and hosts, idle time and PUE included, location-based; "
        f"embodied: {boundary}{missing}.",
    }

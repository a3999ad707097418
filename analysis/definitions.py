"""The boundary, basis, clock and denominators of a run's numbers, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.table import number, task_name

BASES = {"lca": "life-cycle", "direct": "direct (at the chimney)"}


def of(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Terms and what they mean in this run."""
    total = summary["total"]
    return [
        ("Which requests count", _window(total["window"])),
        (
            "Latency",
            "Measured at the client, network included. TTFT until the first token, TPOT the mean time per token after "
            "the first, E2E until the last token; of counted requests that completed. ITL pools every gap between two "
            "tokens. Percentiles are linear interpolations.",
        ),
        (
            "SLO attainment and goodput",
            "Share of the counted requests that completed within every bound of their class jointly; requests that "
            "were rejected, lost or unfinished count as missed. Goodput: the same requests per second of arrivals.",
        ),
        (
            "Token-timeline QoE",
            "Area under the text a user could take in at reading speed, over the area under the text they expected, "
            "until the last token (Andes, version 1); 0 for requests that did not complete.",
        ),
        *_answers(total),
        (
            "Denominators",
            "Energy, carbon and cost are those of the whole run: active, wasted, idle, boot and network, host and PUE "
            "included, from time 0 to the end of accounting. Per token: over output tokens that completed requests "
            "received. A pool or class that delivered none has no such figure.",
        ),
        ("Energy", "At the facility: xPUs and host, times the PUE of the site. " + _sites(total["sites"], "pue")),
        ("Carbon intensity", _intensity(total)),
        ("Embodied carbon", _embodied(total)),
        ("Cost", "Basis: " + ("; ".join(total["cost_basis"]) or "unknown") + "."),
    ]


def _answers(total: Mapping[str, Any]) -> list[tuple[str, str]]:
    if total["answer_task"] is None:
        return []
    if total["answer_task"] == "labels":
        text = "Share of the counted requests that completed whose answers the workload's labels say are correct."
    else:
        text = (
            "Share of correct answers among counted requests that completed: a model is right as often as its score "
            f"on {task_name(total['answer_task'])}, less what its number formats lose, and on which requests, is a "
            "Gaussian copula of the requests' difficulty. A pool whose model has no score leaves the total unknown."
        )
    return [("Answers correct", text)]


def _window(window: Mapping[str, float | None]) -> str:
    until = "the end" if window["horizon_s"] is None else f"{number(window['horizon_s'])} s"
    return (
        f"Latency, SLO and QoE cover requests that arrived from {number(window['warmup_s'])} s until {until}: "
        f"{number(window['observed_s'])} s of arrivals. Accounting runs from 0 to {number(window['end_s'])} s. The "
        "clock is simulated time since the start."
    )


def _sites(sites: Mapping[str, Any], key: str) -> str:
    return "; ".join(f"{name}: {number(site[key])}" for name, site in sites.items()) + "."


def _intensity(total: Mapping[str, Any]) -> str:
    basis = ", ".join(BASES.get(name, name) for name in total["intensity_basis"]) or "not named"
    sources = sorted({site["intensity_source"] for site in total["sites"].values() if site["intensity_source"]})
    means = _sites(total["sites"], "intensity_g_per_kwh")
    kind = ", ".join(total["intensity_kind"]) or "average"
    text = f"Location-based, {kind}, {basis}. Mean over the run in g CO2e/kWh: {means}"
    bought = total["carbon_kg"]["operational_market"]
    market = "not available: no contracts and residual mix are given" if bought is None else f"{number(1e3 * bought)} g"
    return text + (f" Source: {'; '.join(sources)}." if sources else "") + f" Market-based: {market}."


def _embodied(total: Mapping[str, Any]) -> str:
    if not total["embodied_boundary"]:
        return "Unknown, and not in the totals."
    carbon = total["carbon_kg"]
    text = f"Boundary: {', '.join(total['embodied_boundary'])}; spread evenly over the hardware's life."
    if carbon["embodied_low"] is not None and carbon["embodied_high"] is not None:
        text += f" Between {number(1e3 * carbon['embodied_low'])} and {number(1e3 * carbon['embodied_high'])} g."
    return text

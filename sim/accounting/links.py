"""What each link of a fleet carried, and the energy and carbon of it. The links are the meter of the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.fleet.link import CLIENT, Link
from sim.fleet.network import LiveLink
from sim.fleet.spec import Site
from sim.results import LinkTotals
from sim.units import JOULES_PER_KWH


def mean_intensity(link: Link, sites: Mapping[str, Site], end_s: float) -> float:
    """Mean carbon intensity of a link's electricity over a run [g CO2e/kWh].

    Of its own grid; without one, of the site that clients reach over it, or the mean of the two sites that it joins.
    """
    ends = [sites[place].intensity for place in (link.source, link.target) if place != CLIENT]
    signals = ends if link.intensity is None else [link.intensity]
    if end_s > 0.0:
        return sum(signal.integral(0.0, end_s) for signal in signals) / (len(signals) * end_s)
    return sum(signal.at(0.0) for signal in signals) / len(signals)


def link_totals(live: LiveLink, sites: Mapping[str, Site], end_s: float) -> LinkTotals:
    """Totals of one link over a run that ends at `end_s` [s]."""
    link, joules = live.spec, live.energy_j()
    intensity = mean_intensity(link, sites, end_s)
    return LinkTotals(
        link.name,
        link.source,
        link.target,
        live.bytes_up,
        live.bytes_down,
        energy_j=joules,
        carbon_g=None if joules is None or math.isnan(intensity) else joules * intensity / JOULES_PER_KWH,
        intensity_mean=intensity,
        down_s=0.0 if live.outages is None else end_s - live.outages.elapsed(0.0, end_s),
    )


def client_bytes(link: LiveLink | None, tokens: npt.NDArray[Any], up: bool) -> float:
    """Client traffic of `tokens` prompt (up) or output (down) tokens over a pool's link [bytes]."""
    if link is None:
        return 0.0
    return float(tokens.sum()) * (link.spec.prompt_bytes_per_token if up else link.spec.chunk_bytes)


def network_j(link: LiveLink | None, records: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """What the traffic of each request took on its pool's link [J]; 0 without a link, or where that is not known.

    Args:
        link: or None.
        records: tokens of prompt and output, or `client_bytes` where policies decide what is sent.
    """
    if link is None or link.spec.energy_j_per_byte is None:
        return np.zeros(len(records["prompt_tokens"]))
    sent = records.get("client_bytes")
    if sent is None:
        spec = link.spec
        sent = spec.prompt_bytes_per_token * records["prompt_tokens"] + spec.chunk_bytes * records["output_tokens"]
    return sent * link.spec.energy_j_per_byte

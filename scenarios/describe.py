"""`hybridfleet describe FILE`: what a trace holds: rate, burstiness, lengths, and what a prefix cache could find."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from scenarios.listing import Parser
from sim.rng import Streams
from sim.workload import TraceWorkload
from sim.workload.prefixes import infinite_cache_share
from sim.workload.readers import LAYOUTS


def describe(workload: TraceWorkload) -> dict[str, Any]:
    """Statistics of a trace. CV is that of the gaps between arrivals; what does not apply is None."""
    batches = list(workload.batches(Streams(0)))
    arrival_s, prompt, output = (
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("arrival_s", "prompt_tokens", "output_tokens")
    )
    gaps = np.diff(arrival_s)
    span = float(arrival_s[-1] - arrival_s[0])
    return {
        "requests": len(arrival_s),
        "span_s": span,
        "rate_per_s": len(gaps) / span if span > 0.0 else None,
        "cv": float(gaps.std() / gaps.mean()) if span > 0.0 else None,
        "prompt_tokens": _lengths(prompt),
        "output_tokens": _lengths(output),
        "infinite_prefix_cache_share": infinite_cache_share(workload) if workload.prefix_unit else None,
    }


def _lengths(tokens: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, float]:
    percentiles = dict(zip(("p50", "p90", "p99"), np.percentile(tokens, (50, 90, 99)).tolist()))
    return {"mean": float(tokens.mean()), **percentiles, "max": float(tokens.max())}


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    parser = Parser(prog="hybridfleet describe", description=__doc__)
    parser.add_argument("path", metavar="FILE", help="a trace: Azure, Mooncake, BurstGPT, vLLM, or CSV; .gz too")
    parser.add_argument("--format", default="auto", help=f"auto | {' | '.join(LAYOUTS)}")
    parser.add_argument("--sort", action="store_true", help="accept rows out of order")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args(argv)
    found = describe(TraceWorkload(arguments.path, format=arguments.format, sort=arguments.sort))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for name, value in found.items():
        cells = value.items() if isinstance(value, dict) else [("", value)]
        text = "  ".join(f"{key} {_number(cell)}".strip() for key, cell in cells)
        print(f"{name:<28}{text}")
    return 0


def _number(value: float | None) -> str:
    if value is None:
        return "does not apply"
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

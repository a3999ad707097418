"""`hybridfleet describe FILE`, or `KEY=VALUE`: what a trace or a workload holds: rate, burstiness, lengths, sessions,
tenants and the like, and what a prefix cache could find.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from scenarios.listing import Parser
from sim.copula import tetrachoric
from sim.errors import InputError
from sim.request import NO_TRAITS, Traits
from sim.rng import Streams
from sim.workload import TraceWorkload
from sim.workload.base import RequestBatch, Workload
from sim.workload.layouts import LAYOUTS
from sim.workload.prefixes import infinite_cache_share

MOST = 12  #: tenants, priorities and adapters shown one by one


def describe(workload: Workload, seed: int = 0) -> dict[str, Any]:
    """Statistics of a workload. CV is that of the gaps between arrivals; what does not apply is None, or left out.

    Raises:
        InputError: it has no end, or no request.
    """
    if workload.expected_requests() is None and not isinstance(workload, TraceWorkload):
        raise InputError("workload.duration_s", None, "a duration, or a limit: all requests are looked at")
    batches = list(workload.batches(Streams(seed)))
    if not batches:
        raise InputError("workload", type(workload).__name__, "a workload with at least one request")
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
        "infinite_prefix_cache_share": _shared(workload, seed),
        **_sessions(batches),
        **({"closed loop": "times are as if answers took no time"} if hasattr(workload, "loop") else {}),
        **_traits(batches, int(prompt.sum())),
        **_labels(workload, batches),
    }


def _shared(workload: Workload, seed: int) -> float | None:
    return infinite_cache_share(workload, seed) if getattr(workload, "prefix_unit", 0) else None


def _lengths(tokens: np.ndarray[Any, np.dtype[Any]]) -> dict[str, float]:
    percentiles = dict(zip(("p50", "p90", "p99"), np.percentile(tokens, (50, 90, 99)).tolist()))
    return {"mean": float(tokens.mean()), **percentiles, "max": float(tokens.max())}


def _sessions(batches: Sequence[RequestBatch]) -> dict[str, Any]:
    """How many conversations there are, and the turns of each, as far as they lie in the workload."""
    columns = [batch.session for batch in batches if batch.session is not None]
    if not columns:
        return {}
    turns = np.unique(np.concatenate(columns), return_counts=True)[1]
    return {"sessions": len(turns), "turns": _lengths(turns)}


def _labels(workload: Workload, batches: Sequence[RequestBatch]) -> dict[str, Any]:
    """How often each model is right; of each two, either of them, the second alone, and the tetrachoric correlation."""
    columns: Mapping[str, Any] | None = getattr(workload, "labels", None)
    if columns is None:
        return {}
    asked = np.concatenate([batch.question for batch in batches if batch.question is not None])
    labels = {name: column[asked] for name, column in columns.items()}
    found: dict[str, Any] = {"correct": {name: _mean(column) for name, column in labels.items()}}
    for one, other in combinations(labels, 2):
        found[f"{one} and {other}"] = _pair(labels[one], labels[other])
    return found


def _pair(one: np.ndarray[Any, np.dtype[Any]], other: np.ndarray[Any, np.dtype[Any]]) -> dict[str, float | None]:
    known = ~np.isnan(one) & ~np.isnan(other)
    one, other = one[known], other[known]
    rates = [_mean(one), _mean(other), _mean(np.minimum(one, other))]
    first, second, together = (math.nan if rate is None else rate for rate in rates)
    varied = 0.0 < first < 1.0 and 0.0 < second < 1.0
    return {
        "either correct": _mean(np.maximum(one, other)),
        "second alone": _mean(np.maximum(other - one, 0.0)),
        "correlation": tetrachoric(first, second, together) if varied else None,
    }


def _mean(values: np.ndarray[Any, np.dtype[Any]]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _traits(batches: Sequence[RequestBatch], prompt_tokens: int) -> dict[str, Any]:
    """Shares of tenants, priorities, adapters and private requests, deadlines, images; where not all are the same."""
    rows = [row for batch in batches for row in batch.traits or ()]
    if not rows:
        return {}
    columns = dict(zip(Traits._fields, map(np.array, zip(*rows))))
    found: dict[str, Any] = {}
    for trait, plural in (("tenant", "tenants"), ("priority", "priorities"), ("adapter", "adapters")):
        if (columns[trait] != getattr(NO_TRAITS, trait)).any():
            found[plural] = _shares(columns[trait])
    if columns["private"].any():
        found["private"] = {"share": float(columns["private"].mean())}
    due = columns["deadline_s"]
    if np.isfinite(due).any():
        found["deadline_s"] = {"share": float(np.isfinite(due).mean()), **_lengths(due[np.isfinite(due)])}
    if columns["images"].any():
        found["images"] = {
            "share": float((columns["images"] > 0).mean()),
            **_lengths(columns["images"]),
            "share_of_prompt_tokens": float(columns["image_tokens"].sum() / prompt_tokens),
        }
    if columns["reasoning_tokens"].any():
        found["reasoning_tokens"] = _lengths(columns["reasoning_tokens"])
    return found


def _shares(numbers: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, float]:
    """The share of each number, the largest first; of many, the rest as one."""
    names, counts = np.unique(numbers, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shares = {str(names[i]): float(counts[i] / len(numbers)) for i in order[:MOST]}
    if len(order) > MOST:
        shares[f"{len(order) - MOST} others"] = float(counts[order[MOST:]].sum() / len(numbers))
    return shares


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    parser = Parser(prog="hybridfleet describe", description=__doc__)
    parser.add_argument(
        "what",
        nargs="+",
        metavar="FILE or KEY=VALUE",
        help="a trace (Azure, Mooncake, BurstGPT, vLLM, or CSV; .gz too), or what to change in the default scenario, "
        "such as workload=sessions workload.rate=2",
    )
    parser.add_argument("--format", default="auto", help=f"of a file: auto | {' | '.join(LAYOUTS)}")
    parser.add_argument("--sort", action="store_true", help="of a file: accept rows out of order")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="folder with YAML files of your own")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args(argv)
    first = arguments.what[0]
    if "=" in first and not Path(first).exists():
        from scenarios.compose import composed  # here: a file needs no Hydra

        job = composed(arguments.what, arguments.config_dir)
        found = _of_scenario(job.resolve(), job.overrides)
    elif len(arguments.what) > 1:
        raise InputError("arguments", " ".join(arguments.what), "one FILE, or KEY=VALUE alone")
    else:
        found = describe(TraceWorkload(first, format=arguments.format, sort=arguments.sort))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    for name, value in found.items():
        cells = value.items() if isinstance(value, dict) else [("", value)]
        text = "  ".join(f"{key} {_number(cell)}".strip() for key, cell in cells)
        print(f"{name:<28}{text}")
    return 0


def _of_scenario(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Build and describe the workload of a composed configuration; the rest of it is not built."""
    from scenarios.build import GROUPS, build_workload, read_settings
    from scenarios.schema import Section
    from scenarios.targets import check_targets

    top = Section(config, "")
    groups = {name: top.child(name) for name in GROUPS}
    settings = read_settings(top)
    if settings.plugins and not any(override.lstrip("+").startswith("plugins=") for override in overrides):
        # As in `run`: a downloaded scenario must not be able to trust itself.
        accepted = "packages named on the command line, plugins=[...], not in a file"
        raise InputError("plugins", list(settings.plugins), accepted)
    check_targets(groups["workload"].values, "workload", settings.plugins)
    return describe(build_workload(groups["workload"], groups["slo"], settings.plugins), settings.seed)


def _number(value: float | str | None) -> str:
    if value is None:
        return "does not apply"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``hybridfleet compare routers | techniques | applications``: on common seeds, with paired intervals and ties."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.comparison import Metric
from scenarios.alternatives import jobs_of, read_comparison
from scenarios.compare_runs import Request, compare_all
from scenarios.compose import Job, composed
from scenarios.listing import Parser
from scenarios.schema import integer, nearest
from scenarios.settings import pairs, plain_value
from scenarios.trials import PROCESSES
from sim.errors import InputError

SEEDS, REQUESTS = 5, 20_000
_ROUTERS = (
    Metric("slo_attainment", "SLO\n[%]", "high", 100.0),
    Metric("token_qoe", "token QoE\n[0 to 1]", "high"),
    Metric("answer_quality", "answers correct\n[%]", "high", 100.0),
    Metric("usd_per_1000_requests", "USD / 1,000\nwhole fleet", "low", relative=True),
    Metric("usd_active_per_1000_requests", "USD / 1,000\nwork alone", "low", relative=True),
    Metric("g_per_1000_requests", "g CO2e / 1,000\nwhole fleet", "low", relative=True),
    Metric("g_active_per_1000_requests", "g CO2e / 1,000\nwork alone", "low", relative=True),
)
_TECHNIQUES = (
    Metric("gflop_per_output_token", "GFLOP /\noutput token", "low", relative=True),
    Metric("memory_gb", "memory\n[GB]", "low", relative=True),
    Metric("j_per_output_token", "J / output\ntoken", "low", relative=True),
    Metric("usd_active_per_1000_requests", "USD / 1,000\nwork alone", "low", relative=True),
    Metric("network_mb_per_1000_requests", "MB / 1,000\nnetwork", "low", relative=True),
    Metric("tpot_mean_s", "TPOT\n[ms]", "low", 1e3, relative=True),
    Metric("answer_quality", "answers\ncorrect [%]", "high", 100.0),
    Metric("token_qoe", "token QoE\n[0 to 1]", "high"),
)
_APPLICATIONS = (
    Metric("answer_quality", "answers\ncorrect [%]", "high", 100.0),
    Metric("slo_attainment", "SLO\n[%]", "high", 100.0),
    Metric("token_qoe", "token QoE\n[0 to 1]", "high"),
    Metric("ttft_mean_s", "TTFT\n[s]", "low", relative=True),
    Metric("usd_per_1000_requests", "USD / 1,000\nwhole fleet", "low", relative=True),
    Metric("usd_active_per_1000_requests", "USD / 1,000\nwork alone", "low", relative=True),
    Metric("g_per_1000_requests", "g CO2e / 1,000\nwhole fleet", "low", relative=True),
    Metric("g_active_per_1000_requests", "g CO2e / 1,000\nwork alone", "low", relative=True),
)
_EPILOG = """\
settings:
  routers=a,b     which (default: all of conf/router and of --config-dir)
  techniques=a,b  which (default: all of conf/comparison/techniques.yaml); applications=a,b likewise
  pool=NAME       whose model and settings techniques change (default: those of every pool)
  seeds=5         common seeds, from `seed` on; at least 2
  requests=20000  of an alternative in all, shared by its seeds
  baseline=NAME   what the others are compared with; default: of routers the best of each metric, else the file's
  processes=2     side by side; results do not depend on it
  out=DIR         folder of the results; it must not exist
All else changes the scenario, as in `hybridfleet run`.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    parser = Parser(
        "hybridfleet compare",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", help=" | ".join(_KINDS))
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="see below")
    parser.add_argument("--json", action="store_true", help="print nothing but JSON")
    parser.add_argument("-cd", "--config-dir", type=Path, metavar="DIR", help="folder with YAML files of your own")
    arguments = parser.parse_intermixed_args(list(argv))
    if arguments.what not in _KINDS:
        raise InputError("compare", arguments.what, nearest(arguments.what, _KINDS) + " | ".join(_KINDS))
    _KINDS[arguments.what](_read(arguments))
    return 0


def _read(arguments: argparse.Namespace) -> Request:
    """Settings of this program apart from overrides of the scenario."""
    own = (*_KINDS, "seeds", "requests", "baseline", "processes", "pool")
    mine = [text for text in arguments.settings if text.partition("=")[0] in own]
    given = dict(pairs(mine))
    if "pool" in given and arguments.what != "techniques":
        raise InputError("pool", given["pool"], "goes with `hybridfleet compare techniques`")
    number = {
        key: integer(low)(key, plain_value(given.get(key, str(default))))
        for key, low, default in (("seeds", 2, SEEDS), ("requests", 1, REQUESTS), ("processes", 1, PROCESSES))
    }
    key = str(arguments.what)
    if (other := next((name for name in _KINDS if name in given and name != key), None)) is not None:
        raise InputError(other, given[other], f"goes with `hybridfleet compare {other}`")
    return Request(
        names=tuple(name.strip() for name in given[key].strip("[]").split(",")) if key in given else (),
        seeds=number["seeds"],
        requests=number["requests"],
        baseline=given.get("baseline"),
        pool=given.get("pool"),
        processes=number["processes"],
        overrides=tuple(text for text in arguments.settings if text not in mine),
        config_dir=arguments.config_dir,
        json=arguments.json,
    )


def _routers(asked: Request) -> None:
    """Compare routers and policies on one fleet and workload."""
    from analysis.plots.comparison import write
    from sim.hardware.catalogue import list_entries

    known = list_entries("router", asked.search)
    names = _chosen("routers", asked, known)
    if given := next((text for text in asked.overrides if text.partition("=")[0].lstrip("+~") == "router"), None):
        raise InputError("router", given.partition("=")[2], "routers=a,b, for the routers to compare")
    base = composed(asked.overrides, asked.config_dir)

    def alternatives() -> dict[str, tuple[Job, dict[str, Any]]]:
        return {name: (composed([*asked.overrides, f"router={name}"], asked.config_dir), {}) for name in names}

    compare_all("routers", asked, base, alternatives, _ROUTERS, write)


def _techniques(asked: Request) -> None:
    """Compare efficiency techniques as variants of the model that a fleet serves."""
    _of_file("techniques", asked, _TECHNIQUES)


def _applications(asked: Request) -> None:
    """Compare ways to answer the same questions."""
    _of_file("applications", asked, _APPLICATIONS)


def _of_file(kind: str, asked: Request, metrics: Sequence[Metric]) -> None:
    """Compare alternatives of ``conf/comparison``; the baseline is always among them."""
    from analysis.plots.alternatives import write

    comparison = read_comparison(kind, asked.search)
    known = list(comparison.alternatives)
    names = asked.names and (asked.baseline or comparison.baseline, *asked.names)
    asked = replace(asked, names=names, baseline=asked.baseline or comparison.baseline)
    chosen = _chosen(kind, asked, known)
    base, jobs = jobs_of(comparison, chosen, asked.overrides, asked.config_dir, asked.pool)
    compare_all(kind, asked, base, lambda: jobs, metrics, write)


def _chosen(key: str, asked: Request, known: Sequence[str]) -> list[str]:
    """The alternatives by name, each once; the baseline is one of them."""
    for name in asked.names:
        if name not in known:
            raise InputError(key, name, nearest(name, known) + " | ".join(known))
    names = list(dict.fromkeys(asked.names or known))
    if asked.baseline is not None and asked.baseline not in names:
        raise InputError("baseline", asked.baseline, nearest(asked.baseline, names) + " | ".join(names))
    return names


_KINDS: dict[str, Callable[[Request], None]] = {
    "routers": _routers,
    "techniques": _techniques,
    "applications": _applications,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

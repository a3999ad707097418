"""``hybridfleet compare routers | techniques``: alternatives on common seeds, with paired intervals and ties."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.comparison import Column, Metric, Row, compare, describe, flat
from scenarios.compose import Job, composed
from scenarios.listing import Parser
from scenarios.schema import integer, nearest
from scenarios.settings import pairs, plain_value, unused_folder
from scenarios.trials import PROCESSES, Runner, Trial, runner
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
_EPILOG = """\
settings:
  routers=a,b     which (default: all of conf/router and of --config-dir)
  seeds=5         common seeds, from `seed` on; at least 2
  requests=20000  of an alternative in all, shared by its seeds
  baseline=NAME   what the others are compared with; default: the best of each metric
  processes=2     side by side; results do not depend on it
  out=DIR         folder of the results; it must not exist
All else changes the scenario, as in `hybridfleet run`.
"""


@dataclass(slots=True)
class Field:
    """What was compared.

    Attributes:
        rows: of each alternative that ran, one row a seed.
        refused: why others did not run.
        incomplete: what totals leave out, in words.
        seeds: the common seeds.
    """

    rows: dict[str, list[Row]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    incomplete: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for.

    Attributes:
        names: alternatives, in order; empty for all.
        seeds: how many.
        requests: of an alternative in all.
        baseline: or None for the best.
        processes: side by side.
        overrides: changes of the scenario.
        config_dir: folder of the user's own entries.
        json: print JSON alone.
    """

    names: tuple[str, ...]
    seeds: int
    requests: int
    baseline: str | None
    processes: int
    overrides: tuple[str, ...]
    config_dir: Path | None
    json: bool

    @property
    def search(self) -> tuple[Path, ...]:
        """Where entries are looked for first."""
        return () if self.config_dir is None else (self.config_dir,)


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
    own = ("routers", "techniques", "seeds", "requests", "baseline", "processes")
    mine = [text for text in arguments.settings if text.partition("=")[0] in own]
    given = dict(pairs(mine))
    number = {
        key: integer(low)(key, plain_value(given.get(key, str(default))))
        for key, low, default in (("seeds", 2, SEEDS), ("requests", 1, REQUESTS), ("processes", 1, PROCESSES))
    }
    key = str(arguments.what)
    if (other := next((name for name in ("routers", "techniques") if name in given and name != key), None)) is not None:
        raise InputError(other, given[other], f"goes with `hybridfleet compare {other}`")
    return Request(
        names=tuple(name.strip() for name in given[key].strip("[]").split(",")) if key in given else (),
        seeds=number["seeds"],
        requests=number["requests"],
        baseline=given.get("baseline"),
        processes=number["processes"],
        overrides=tuple(text for text in arguments.settings if text not in mine),
        config_dir=arguments.config_dir,
        json=arguments.json,
    )


def _routers(asked: Request) -> None:
    """Compare routers and policies on one fleet and workload."""
    from sim.hardware.catalogue import list_entries

    known = list_entries("router", asked.search)
    names = _chosen("routers", asked, known)
    if given := next((text for text in asked.overrides if text.partition("=")[0].lstrip("+~") == "router"), None):
        raise InputError("router", given.partition("=")[2], "routers=a,b, for the routers to compare")
    base = composed(asked.overrides, asked.config_dir)[0]
    jobs = composed([*asked.overrides, f"router={','.join(names)}"], asked.config_dir, multirun=True)
    by_name = {job.choices["router"]: (job, dict[str, Any]()) for job in jobs}
    _compare("routers", asked, base, {name: by_name[name] for name in names}, _ROUTERS)


def _chosen(key: str, asked: Request, known: Sequence[str]) -> list[str]:
    """The alternatives by name, each once; the baseline is one of them."""
    for name in asked.names:
        if name not in known:
            raise InputError(key, name, nearest(name, known) + " | ".join(known))
    names = list(dict.fromkeys(asked.names or known))
    if asked.baseline is not None and asked.baseline not in names:
        raise InputError("baseline", asked.baseline, nearest(asked.baseline, names) + " | ".join(names))
    return names


def _compare(
    kind: str,
    asked: Request,
    base: Job,
    alternatives: Mapping[str, tuple[Job, Mapping[str, Any]]],
    metrics: Sequence[Metric],
) -> None:
    """Check, run, compare, write and print."""
    from scenarios.build import build
    from scenarios.run import check_plugins
    from scenarios.store import check_out

    started = datetime.now(UTC)
    config = base.resolve()
    check_plugins(config.get("plugins"), base.overrides)
    settings = build(config, asked.search).settings
    out = settings.out or unused_folder(f"compare-{kind}", started)
    check_out(out)
    with runner(asked.processes, quiet=asked.json or settings.progress == "none") as run:
        found = run_field(run, asked, base, alternatives, settings.seed)
    if not found.rows:
        name, why = next(iter(found.refused.items()))
        raise InputError(kind, name, f"one that this scenario can use ({why})")
    if asked.baseline in found.refused:
        raise InputError("baseline", asked.baseline, f"one that runs here ({found.refused[asked.baseline]})")
    columns = [compare(found.rows, metric, asked.baseline) for metric in metrics]
    document = _document(kind, asked, found, columns)
    _write(kind, out, config, base.overrides, document, found, columns, settings.figures)
    if asked.json:
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    from analysis.comparison_table import print_comparison

    print_comparison(found.rows, columns, found.refused, found.incomplete)
    print(f"Results: {out}")


def run_field(
    run: Runner,
    asked: Request,
    base: Job,
    alternatives: Mapping[str, tuple[Job, Mapping[str, Any]]],
    first_seed: int,
) -> Field:
    """Run every alternative on every seed; what is refused on the first seed is not tried again."""
    seeds = tuple(range(first_seed, first_seed + asked.seeds))
    found = Field(seeds=seeds)
    configs: dict[str, dict[str, Any]] = {}
    for name, (job, changes) in alternatives.items():
        try:
            configs[name] = job.resolve({**_size(base, asked), **changes})
        except InputError as error:
            found.refused[name] = str(error)
    # The first seed of all goes first: it tells who can run at all.
    for chunk in (seeds[:1], seeds[1:]):
        names = [name for name in configs if name not in found.refused]
        trials = [Trial(name, {**configs[name], "seed": seed}, asked.search) for seed in chunk for name in names]
        for trial, outcome in zip(trials, run.run(trials)):
            if outcome.row is None:
                found.refused.setdefault(trial.name, outcome.refused)
                found.rows.pop(trial.name, None)
            elif trial.name not in found.refused:
                found.rows.setdefault(trial.name, []).append(outcome.row)
                found.incomplete = tuple(dict.fromkeys((*found.incomplete, *outcome.incomplete)))
    return found


def _size(base: Job, asked: Request) -> dict[str, Any]:
    """Requests of one run, unless the user sizes the workload, or it has no such limit."""
    workload = base.resolve()["workload"]
    own = ("workload.limit", "workload.duration_s", "horizon_s")
    if "limit" not in workload or any(text.partition("=")[0].lstrip("+") in own for text in base.overrides):
        return {}
    return {"workload.limit": -(-asked.requests // asked.seeds)}


def _document(kind: str, asked: Request, found: Field, columns: Sequence[Column]) -> dict[str, Any]:
    """What comparison.json holds."""
    return {
        "compared": kind,
        "seeds": list(found.seeds),
        "baseline": asked.baseline,
        "confidence": 0.95,
        "coverage": {
            name: {
                key: min((row[key] for row in rows if row[key] is not None), default=None)
                for key in ("requests", "completed_share", "quality_known_share")
            }
            for name, rows in found.rows.items()
        },
        "refused": found.refused,
        "incomplete": list(found.incomplete),
        "metrics": {column.metric.key: describe(column) for column in columns},
    }


def _write(
    kind: str,
    out: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    document: Mapping[str, Any],
    found: Field,
    columns: Sequence[Column],
    figures: bool,
) -> None:
    """The folder of results, whole or not at all."""
    import polars as pl

    from analysis.plots.comparison import write
    from scenarios.store import program, whole_or_nothing, write_json

    try:
        with whole_or_nothing(out) as folder:
            write_json(folder / "comparison.json", document)
            pl.DataFrame(flat(columns), infer_schema_length=None).write_csv(folder / "comparison.csv")
            runs = [
                {"alternative": name, "seed": seed, **row}
                for name, rows in found.rows.items()
                for seed, row in zip(found.seeds, rows)
            ]
            pl.DataFrame(runs, infer_schema_length=None).write_parquet(folder / "runs.parquet")
            write_json(folder / "manifest.json", {**program(), "overrides": list(overrides), "config": config})
            if figures:
                write(kind, folder, columns)
    except OSError as error:
        raise InputError("out", str(out), f"a folder that can be written ({error.strerror or error})") from error


_KINDS: dict[str, Callable[[Request], None]] = {"routers": _routers}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

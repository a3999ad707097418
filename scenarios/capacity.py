"""``hybridfleet capacity``: the highest rate that a fleet holds at its SLO, with all replicas and with one fewer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.capacity import MOST_LEFT
from analysis.capacity_answer import Capacity, describe, flat, print_capacities, trials
from scenarios import cli
from scenarios.capacity_rate import REQUESTS, rate_of
from scenarios.capacity_search import Finder, replicas_of
from scenarios.compose import composed
from scenarios.listing import Parser
from scenarios.schema import integer, nearest, number, one_line
from scenarios.settings import pairs, plain_value, unused_folder
from scenarios.trials import PROCESSES, runner
from sim.errors import InputError

SEEDS, TARGET = 4, 0.9
_COUNTS = {"seeds": 1, "requests": 50, "processes": 1}  #: and the fewest of each
EACH = "all"  #: as `pool=`: one replica fewer in every pool that has two
_EPILOG = f"""\
settings:
  target={TARGET}      share of requests that have to be within their SLO
  pool=NAME       where a replica is taken away; {EACH}: in every pool at once
                  (default: one row for each pool with at least two replicas)
  seeds={SEEDS}         common seeds, from `seed` on
  requests={REQUESTS}   of a trial and seed (default: at least so many, or as many as fill the fleet ten times)
  processes=2     side by side; results do not depend on it
  out=DIR         folder of the results; it must not exist
All else changes the scenario, as in `hybridfleet run`. A rate is held if enough requests are within their SLO and no
backlog grows. Searched to 2 % in rate.
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for: see the help."""

    target: float
    pool: str | None
    seeds: int
    requests: int | None
    processes: int
    overrides: tuple[str, ...]
    config_dir: Path | None
    json: bool


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status.

    Raises:
        InputError: something on the command line cannot be used, or the workload has no rate that can be scaled.
    """
    parser = Parser(
        "hybridfleet capacity",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="see below")
    parser.add_argument("--json", action="store_true", help="print nothing but JSON")
    parser.add_argument("-cd", "--config-dir", type=Path, metavar="DIR", help="folder with YAML files of your own")
    _run(_read(parser.parse_intermixed_args(list(argv))))
    return 0


def _read(arguments: argparse.Namespace) -> Request:
    mine = [text for text in arguments.settings if text.partition("=")[0] in ("target", "pool", *_COUNTS)]
    given = dict(pairs(mine))
    counts = {key: integer(low)(key, plain_value(given[key])) for key, low in _COUNTS.items() if key in given}
    share = number("a share of requests in (0, 1], such as 0.9", above=0.0, high=1.0)
    return Request(
        target=share("target", plain_value(given.get("target", str(TARGET)))),
        pool=given.get("pool"),
        seeds=counts.get("seeds", SEEDS),
        requests=counts.get("requests"),
        processes=counts.get("processes", PROCESSES),
        overrides=tuple(text for text in arguments.settings if text not in mine),
        config_dir=arguments.config_dir,
        json=arguments.json,
    )


def _run(asked: Request) -> None:
    """Check, search, write and print."""
    from scenarios.build import build
    from scenarios.run import check_plugins
    from scenarios.store import check_out

    started = datetime.now(UTC)
    base = composed(asked.overrides, asked.config_dir)
    config = base.resolve()
    check_plugins(config.get("plugins"), base.overrides)
    search = () if asked.config_dir is None else (asked.config_dir,)
    settings = build(config, search).settings
    replicas = replicas_of(config)
    fleets = _fleets(replicas, asked.pool)
    rate = rate_of(base, search, asked.requests)
    out = settings.out or unused_folder("capacity", started)
    check_out(out)
    found: list[Capacity] = []
    quiet = asked.json or settings.progress == "none"
    seeds = tuple(range(settings.seed, settings.seed + asked.seeds))
    with runner(asked.processes, quiet) as run:
        for name, removed in fleets.items():
            held = {pool: count - removed.get(pool, 0) for pool, count in replicas.items()}
            finder = Finder(run, base, rate, removed, seeds, search, asked.target, name, quiet)
            guess = rate.without(found[0].held.value, removed) if found and found[0].held else rate.guess
            try:
                found.append(finder.find(held, guess))
            except InputError as error:
                if not found:
                    raise
                found.append(Capacity(name, held, refused=one_line(error)))
    answer = {
        "target": asked.target,
        "seeds": list(seeds),
        "rate_key": rate.key,
        "most_left": MOST_LEFT,
        "bin_s": rate.sized["timeline_bin_s"],
        "fleets": [describe(each, asked.target) for each in found],
    }
    _write(out, config, base.overrides, answer, found, asked.target, settings.figures)
    if asked.json:
        print(json.dumps(answer, indent=2, allow_nan=False))
        return
    print_capacities(found, asked.target, len(seeds))
    print(f"Results: {out}")


def _fleets(replicas: Mapping[str, int], pool: str | None) -> dict[str, dict[str, int]]:
    """The fleets to search, by name: replicas that each lacks, by pool.

    Raises:
        InputError: the pool does not exist, or has no second replica.
    """
    several = [name for name, count in replicas.items() if count > 1]
    if pool is not None and pool not in (*several, EACH):
        accepted = " | ".join((*several, EACH)) if several else "none: no pool of this fleet has two replicas"
        raise InputError("pool", pool, nearest(pool, several) + accepted)
    if pool == EACH:
        return {"all replicas": {}, "one fewer in each": dict.fromkeys(several, 1)}
    fewer_in = several if pool is None else [pool]
    return {"all replicas": {}} | {f"{name}: {replicas[name] - 1} of {replicas[name]}": {name: 1} for name in fewer_in}


def _write(
    out: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    answer: Mapping[str, Any],
    found: Sequence[Capacity],
    target: float,
    figures: bool,
) -> None:
    """The folder of results, whole or not at all."""
    import polars as pl

    from analysis.plots.capacity import write
    from scenarios.store import program, whole_or_nothing, write_json

    try:
        with whole_or_nothing(out) as folder:
            write_json(folder / "capacity.json", answer)
            pl.DataFrame(flat(found, target), infer_schema_length=None).write_csv(folder / "capacity.csv")
            pl.DataFrame(trials(found), infer_schema_length=None).write_csv(folder / "trials.csv")
            write_json(folder / "manifest.json", {**program(), "overrides": list(overrides), "config": config})
            if figures:
                write(folder, found, target)
    except OSError as error:
        raise InputError("out", str(out), f"a folder that can be written ({error.strerror or error})") from error


if __name__ == "__main__":
    sys.exit(cli.main(["capacity", *sys.argv[1:]]))

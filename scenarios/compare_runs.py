"""Alternatives run on common seeds, compared, written and printed: what every kind of comparison shares."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.comparison import Column, Metric, Row, compare, describe, flat
from scenarios.compose import Job
from scenarios.settings import unused_folder
from scenarios.trials import Runner, Trial, runner
from sim.errors import InputError

Draw = Callable[[str, Path, Sequence[Column]], Any]  #: of the kind, the folder and the columns


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
        pool: that techniques change; None for every one.
        processes: side by side.
        overrides: changes of the scenario.
        config_dir: folder of the user's own entries.
        json: print JSON alone.
    """

    names: tuple[str, ...]
    seeds: int
    requests: int
    baseline: str | None
    pool: str | None
    processes: int
    overrides: tuple[str, ...]
    config_dir: Path | None
    json: bool

    @property
    def search(self) -> tuple[Path, ...]:
        """Where entries are looked for first."""
        return () if self.config_dir is None else (self.config_dir,)


def compare_all(
    kind: str,
    asked: Request,
    base: Job,
    alternatives: Callable[[], Mapping[str, tuple[Job, Mapping[str, Any]]]],
    metrics: Sequence[Metric],
    draw: Draw,
) -> None:
    """Check, run, compare, write and print.

    Args:
        kind: what is compared.
        asked: the command line.
        base: the scenario.
        alternatives: makes, by name, the job and the keys that it changes there; asked once all else is known to do.
        metrics: columns of the table.
        draw: writes the figure.

    Raises:
        InputError: nothing can run, or the baseline cannot.
    """
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
        found = run_field(run, asked, base, alternatives(), settings.seed)
    if not found.rows:
        name, why = next(iter(found.refused.items()))
        raise InputError(kind, name, f"one that this scenario can use ({why})")
    if asked.baseline in found.refused:
        raise InputError("baseline", asked.baseline, f"one that runs here ({found.refused[asked.baseline]})")
    columns = [compare(found.rows, metric, asked.baseline) for metric in metrics]
    document = _document(kind, asked, found, columns)
    drawn = (lambda folder: draw(kind, folder, columns)) if settings.figures else None
    _write(out, config, base.overrides, document, found, columns, drawn)
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
    out: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    document: Mapping[str, Any],
    found: Field,
    columns: Sequence[Column],
    draw: Callable[[Path], Any] | None,
) -> None:
    """The folder of results, whole or not at all."""
    import polars as pl

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
            if draw is not None:
                draw(folder)
    except OSError as error:
        raise InputError("out", str(out), f"a folder that can be written ({error.strerror or error})") from error

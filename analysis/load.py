"""Run folders and sweeps back as tables, and columns of the simulator as data frames."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sim.errors import InputError
from sim.results import STATUSES, Columns, Result

if TYPE_CHECKING:
    import polars as pl

Json = dict[str, Any]
OPTIONAL = ("spans", "legs", "sites")  #: tables that not every run has


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder.

    Attributes:
        path: the folder.
        requests, timeline, gaps: columns as in `sim.results`, codes as names.
        spans, legs, sites: likewise, or None where the run has none.
        summary, manifest: the two JSON files.
    """

    path: Path
    requests: pl.DataFrame
    timeline: pl.DataFrame
    gaps: pl.DataFrame
    spans: pl.DataFrame | None
    legs: pl.DataFrame | None
    sites: pl.DataFrame | None
    summary: Json
    manifest: Json


def frame(columns: Columns, pools: Sequence[str] = (), slo_classes: Sequence[str] = ()) -> pl.DataFrame:
    """Columns as a data frame, with codes as readable names where the names are given; NaN becomes null.

    Args:
        columns: such as `Result.requests` or `Result.timeline`.
        pools, slo_classes: names by code. Code -1 becomes null.
    """
    import polars as pl

    names = {"pool": pools, "slo_class": slo_classes, "status": STATUSES}
    table = pl.DataFrame({name: _series(name, values) for name, values in columns.items()})
    for column, labels in names.items():
        if column in columns and len(labels):
            code = table[column].cast(pl.UInt32, strict=False)  # -1 does not fit: null
            table = table.with_columns(pl.Series(labels, dtype=pl.Enum(labels)).gather(code).alias(column))
    return table


def _series(name: str, values: npt.NDArray[Any]) -> pl.Series:
    import polars as pl

    if values.dtype == object:
        return pl.Series(name, values.tolist(), dtype=pl.String)
    return pl.Series(name, values, nan_to_null=True)


def frames(result: Result) -> dict[str, pl.DataFrame]:
    """All tables of a result: requests, timeline, gaps, and spans, legs and sites where there are any."""
    pools, classes = [pool.name for pool in result.pools], [slo.name for slo in result.slo_classes]
    tables = {"requests": result.requests, "timeline": result.timeline, "gaps": gap_columns(result)}
    if result.spans is not None:
        tables["spans"] = result.spans
    if result.legs is not None:
        tables["legs"] = result.legs
    if result.sites:
        tables["sites"] = site_columns(result)
    return {name: frame(columns, pools, classes) for name, columns in tables.items()}


def site_columns(result: Result) -> Columns:
    """Power of every site with a plant of its own by step, and the site's name."""
    names = [np.full(len(site.steps["t_s"]), site.name, dtype=object) for site in result.sites]
    every = list(dict.fromkeys(name for site in result.sites for name in site.steps))
    columns = {name: np.concatenate([_steps(site.steps, name) for site in result.sites]) for name in every}
    return {"site": np.concatenate(names), **columns}


def _steps(steps: Mapping[str, npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    """A column of a site, or nothing but NaN where the site does not have it."""
    return steps[name] if name in steps else np.full(len(steps["t_s"]), np.nan)


def gap_columns(result: Result) -> Columns:
    """Inter-token gaps of every pool and SLO class as one table of (pool, slo_class, gap_s, count)."""
    items = sorted(result.gaps.items())
    sizes = [len(sample.value_s) for _, sample in items]
    keys = np.array([key for key, _ in items], dtype=np.int16).reshape(-1, 2)
    return {
        "pool": np.repeat(keys[:, 0], sizes),
        "slo_class": np.repeat(keys[:, 1], sizes),
        "gap_s": np.concatenate([sample.value_s for _, sample in items] or [np.empty(0)]),
        "count": np.concatenate([sample.count for _, sample in items] or [np.empty(0, dtype=np.int64)]),
    }


def load_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        InputError: it is no run folder, or not a whole one.
    """
    import polars as pl

    path = Path(folder)
    summary, manifest = _documents(path)
    tables = {}
    for name in ("requests", "timeline", "gaps", *OPTIONAL):
        file = path / f"{name}.parquet"
        if file.is_file():
            tables[name] = pl.read_parquet(file)
        elif name not in OPTIONAL:
            raise InputError("run folder", str(path), f"a whole run folder; {file.name} is missing")
    optional = [tables.get(name) for name in OPTIONAL]
    return Run(path, tables["requests"], tables["timeline"], tables["gaps"], *optional, summary, manifest)


def load_sweep(folder: str | Path, by_pool: bool = False) -> pl.DataFrame:
    """One row a run of all run folders below `folder`: what differs between their configurations, then their metrics.

    Columns: `run` (folder name), one for each override that differs between the runs (or for each configuration key
    that does, where the overrides do not tell all runs apart), and the total of `summary.json` with nested keys joined
    by an underscore (``ttft_s_p99``, ``carbon_kg_total``). A folder that is not a whole run is skipped with a warning
    that names it.

    Args:
        folder: where a sweep wrote its runs.
        by_pool: also give the metrics of every pool, as ``POOL.ttft_s_p99``.

    Raises:
        InputError: there is no whole run below `folder`.
    """
    import polars as pl

    root = Path(folder)
    if not root.is_dir():
        raise InputError("sweep folder", str(root), "a folder that exists")
    names, typed, settings, metrics = [], [], [], []
    for path in sorted((child for child in root.iterdir() if child.is_dir()), key=_natural):
        try:
            summary, manifest = _documents(path)
            metrics.append(_metrics(summary, by_pool))
            typed.append(_typed(manifest))
            settings.append(typed[-1] | _configured(manifest))
            names.append(path.name)
        except InputError as error:
            warnings.warn(f"skipped: {error}", stacklevel=2)
    if not names:
        raise InputError("sweep folder", str(root), "a folder with at least one run folder in it")
    columns: dict[str, list[Any]] = {"run": names} | _telling(typed, settings)
    for key in _keys(metrics):
        columns.setdefault(key, [row.get(key) for row in metrics])
    return pl.DataFrame({key: pl.Series(key, _alike(values)) for key, values in columns.items()})


def _documents(path: Path) -> tuple[Json, Json]:
    """summary.json and manifest.json of a run folder."""
    if path.name.startswith("."):
        raise InputError("run folder", str(path), "a whole run folder; the writing of this one was cut short")
    documents = []
    for name in ("summary.json", "manifest.json"):
        try:
            documents.append(json.loads((path / name).read_text(encoding="utf-8")))
        except OSError:
            raise InputError("run folder", str(path), f"a whole run folder; {name} is missing") from None
        except ValueError as error:
            raise InputError("run folder", str(path), f"a whole run folder; {name} is not JSON: {error}") from None
    return documents[0], documents[1]


def _natural(path: Path) -> tuple[int, int, str]:
    """Order folders 2 before 10, numbers before names."""
    return (0, int(path.name), "") if path.name.isdigit() else (1, 0, path.name)


def _typed(manifest: Json) -> Json:
    """Overrides by key, as they were typed."""
    return dict(text.lstrip("+").split("=", 1) for text in manifest.get("overrides", []) if "=" in text)


def _configured(manifest: Json) -> Json:
    """Every key of the configuration, dotted; not what is said about them."""
    config = _leaves(manifest.get("config", {}), ".")
    return {key: value for key, value in config if "about" not in key.split(".")}


def _metrics(summary: Json, by_pool: bool) -> Json:
    """Numbers of a summary as one flat row."""
    total = {key: value for key, value in summary["total"].items() if key != "sites"}
    row = dict(_leaves(total, "_")) | dict(_leaves({"performance": summary["performance"]}, "_"))
    if by_pool:
        for pool, section in summary["by_pool"].items():
            row |= {f"{pool}.{key}": value for key, value in _leaves(section, "_")}
    return row


def _leaves(tree: Mapping[str, Any], joint: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested mappings under its joined key; lists become text."""
    for key, value in tree.items():
        name = f"{prefix}{joint}{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _leaves(value, joint, name)
        elif isinstance(value, list):
            plain_list = all(isinstance(item, str) for item in value)
            yield name, "; ".join(value) if plain_list else json.dumps(value)
        else:
            yield name, value


def _keys(rows: Sequence[Json]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _differing(rows: Sequence[Json]) -> dict[str, list[Any]]:
    columns = {key: [row.get(key) for row in rows] for key in _keys(rows)}
    return {key: values for key, values in columns.items() if len({json.dumps(value) for value in values}) > 1}


def _telling(typed: Sequence[Json], settings: Sequence[Json]) -> dict[str, list[Any]]:
    """Columns of what tells the runs apart: what was typed where that is enough, else every key that differs.

    One typed word, such as a fleet's name, stands for all the keys that come with it.
    """
    differing = _differing(settings)
    if len({json.dumps(row, sort_keys=True) for row in typed}) < len(typed):
        return differing
    keys = _keys(typed)
    return {key: values for key, values in differing.items() if key in keys}


def _alike(values: list[Any]) -> list[Any]:
    """Values of one type for a column: numbers stay numbers, a mix becomes text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and len(kinds) == 2:
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1:
        return [None if value is None else str(value) for value in values]
    return values

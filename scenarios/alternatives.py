"""Alternatives from a file of ``conf/comparison``: sets of overrides, or keys of a pool, to be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenarios.compose import Job, composed
from scenarios.schema import Section, anything, list_of, nearest, text
from scenarios.size_inputs import scenario_file
from sim.errors import InputError


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of several ways to serve a scenario.

    Attributes:
        what: it is, in words.
        overrides: of the scenario, after those of the command line.
        pool: keys that it sets of pools, by dotted name.
    """

    what: str
    overrides: tuple[str, ...]
    pool: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A file of alternatives.

    Attributes:
        overrides: of the scenario, before those of the command line.
        baseline: what the others are compared with.
        alternatives: by name.
    """

    overrides: tuple[str, ...]
    baseline: str
    alternatives: Mapping[str, Alternative]


def read_comparison(kind: str, search: Sequence[Path]) -> Comparison:
    """Read ``comparison/KIND.yaml``, from the user's own folders first.

    Raises:
        InputError: it is not there, or has keys that nobody reads.
    """
    top = Section(scenario_file("comparison", kind, "compare", search), f"comparison.{kind}")
    top.get("about", anything, None)
    overrides = tuple(top.get("scenario", list_of(text), []))
    baseline = top.need("baseline", text)
    alternatives = {}
    for name, each in top.children("alternatives").items():
        pool = dict(_dotted(each.child("pool").values))
        alternatives[name] = Alternative(
            each.get("what", text, name), tuple(each.get("scenario", list_of(text), [])), pool
        )
        each.finish()
    top.finish()
    if baseline not in alternatives:
        raise InputError(top.path("baseline"), baseline, " | ".join(alternatives))
    return Comparison(overrides, baseline, alternatives)


def jobs_of(
    comparison: Comparison, names: Sequence[str], overrides: Sequence[str], config_dir: Path | None, pool: str | None
) -> tuple[Job, dict[str, tuple[Job, dict[str, Any]]]]:
    """The scenario, and of each alternative its job and the keys that it changes there.

    Args:
        comparison: the file.
        names: of the alternatives.
        overrides: of the command line.
        config_dir: folder of the user's own entries.
        pool: that alternatives change; None for every one.
    """
    words = (*comparison.overrides, *overrides)
    base = composed(words, config_dir)
    made = {}
    for name in names:
        each = comparison.alternatives[name]
        job = composed((*words, *each.overrides), config_dir) if each.overrides else base
        pools = _pools(job.resolve()["fleet"], pool) if each.pool or pool is not None else ()
        made[name] = (job, {f"{path}.{key}": value for path in pools for key, value in each.pool.items()})
    return base, made


def _pools(fleet: Mapping[str, Any], wanted: str | None) -> list[str]:
    """Dotted names of the pools of a fleet, or of the one that is wanted."""
    if "sites" not in fleet:
        found = {"single": "fleet"}
    else:
        found = {
            pool: f"fleet.sites.{site}.pools.{pool}"
            for site, values in fleet["sites"].items()
            for pool in (values or {}).get("pools") or {}
        }
    if wanted is not None and wanted not in found:
        raise InputError("pool", wanted, nearest(wanted, found) + " | ".join(found))
    return [found[wanted]] if wanted is not None else list(found.values())


def _dotted(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested mappings by dotted name."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        pairs += _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return pairs

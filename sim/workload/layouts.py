"""Where traces keep what a request needs: the formats that are known, and how one is told by its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path

from sim.errors import InputError
from sim.request import Traits

FIELDS = ("arrival", "prompt", "output")
TRAIT_FIELDS = Traits._fields  #: what a trace may tell besides
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}  #: time units of numeric timestamps [s]
TIME_UNITS = (*SECONDS, "datetime")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a format keeps what a request needs.

    Attributes:
        names: for arrival, prompt and output the names that occur; the first one present counts.
        time_unit: one of `TIME_UNITS`.
        json: one JSON object a line, rather than CSV with a header.
        drop_failed: rows without output tokens are failed requests of the measured system, not errors.
        hashes: where a list of names for the prompt's prefix units is.
        traits: where what sets requests apart is, by field; read where it is present.
    """

    names: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    time_unit: str
    json: bool = False
    drop_failed: bool = False
    hashes: str | None = None
    traits: Mapping[str, str] = dataclass_field(default_factory=dict)


#: Formats in the order in which they are tried; "csv" names the columns of common simulator traces.
LAYOUTS = {
    "azure": Layout(
        (("TIMESTAMP",), ("ContextTokens",), ("GeneratedTokens",)), "datetime", traits={"images": "NumImages"}
    ),
    "burstgpt": Layout((("Timestamp",), ("Request tokens",), ("Response tokens",)), "s", drop_failed=True),
    "csv": Layout((("arrived_at",), ("num_prefill_tokens",), ("num_decode_tokens",)), "s"),
    "mooncake": Layout((("timestamp",), ("input_length",), ("output_length",)), "ms", json=True, hashes="hash_ids"),
    "vllm": Layout(
        (
            ("arrival_time", "timestamp", "start_time"),
            ("input_toks", "prompt_len", "input_len", "prompt_tokens", "input_tokens"),
            ("output_toks", "output_len", "completion_tokens", "output_tokens"),
        ),
        "s",
        json=True,
    ),
}


def guess(present: list[str], is_json: bool, path: Path, columns: Mapping[str, str]) -> str:
    """Tell the format by the names that occur; where the user names all three columns, it is no known one."""
    if all(field in columns for field in FIELDS):
        return "csv"
    for name, layout in LAYOUTS.items():
        needed = [keys for field, keys in zip(FIELDS, layout.names) if field not in columns]
        if layout.json == is_json and all(any(key in present for key in keys) for keys in needed):
            return name
    accepted = "columns of a known format (" + " | ".join(LAYOUTS) + "), or workload.columns to map others"
    raise InputError("columns", ", ".join(present)[:200], accepted, f"{path} line 1")


def settle_traits(layout: Layout, columns: Mapping[str, str], present: list[str], path: Path) -> dict[str, str]:
    """Choose the names of traits: those that the user gives, which must be there, and the format's own that are."""
    for trait in TRAIT_FIELDS:
        if trait in columns and columns[trait] not in present:
            accepted = f"a column for {trait} named {columns[trait]}"
            raise InputError("columns", ", ".join(present)[:200], accepted, f"{path} line 1")
    own = {trait: name for trait, name in layout.traits.items() if name in present}
    return {trait: name for trait, name in {**own, **columns}.items() if trait in TRAIT_FIELDS}


def settle(layout: Layout, columns: Mapping[str, str], present: list[str], path: Path) -> tuple[str, str, str]:
    """Choose the name of each field, the user's before the format's."""
    chosen = []
    for field, names in zip(FIELDS, layout.names):
        names = (columns[field],) if field in columns else names
        found = [name for name in names if name in present]
        if not found:
            article = "a" if field == "prompt" else "an"
            accepted = f"{article} {field} column named {' or '.join(names)}"
            raise InputError("columns", ", ".join(present)[:200], accepted, f"{path} line 1")
        chosen.append(found[0])
    return chosen[0], chosen[1], chosen[2]

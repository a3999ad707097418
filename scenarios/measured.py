"""A measured run of a real engine: every request's times, and its reader for folders of stamps by the engine.

Such a folder holds `requests.jsonl`, `meta.json` and, if the engine logged it, `timeseries.csv`. Records that a client
took are read by `scenarios.client_records`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenarios.deployment import Requests, xpu_named
from scenarios.schema import Check, integer, number, one_line
from scenarios.table_file import need, read_table
from scenarios.vllm_meta import read_meta
from sim.errors import InputError

Floats = npt.NDArray[np.float64]

_STAMPS = ("queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts")
LONGEST_S = 30 * 86400.0  #: two stamps further apart do not come from one clock [s]
_CLOCKS = "stamps of one clock in the order " + " <= ".join(_STAMPS)
FINITE: Check[float] = number("a finite time [s]")


@dataclass(frozen=True, slots=True)
class Series:
    """What the engine logged over time; a column that it did not log is None.

    Attributes:
        t_s: when, since the first request [s]; tick_s: how often [s].
        running, waiting: requests; tokens_per_s: output; kv_use: share of the KV cache in [0, 1].
    """

    t_s: Floats
    tick_s: float
    running: Floats | None
    waiting: Floats | None
    tokens_per_s: Floats | None
    kv_use: Floats | None


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured run: a row a request, in order of arrival, the first at 0.

    Attributes:
        name, path: what it is called and where it was read.
        client: True if times are the client's and thus contain network and front end; else the engine's.
        requests: what was asked for.
        ttft_s, e2e_s: time to the first and to the last token [s].
        itl_s: all gaps between tokens, where known [s].
        series: what the engine logged, where it did.
        stated: keys of the pool that served; empty where the record does not tell.
        defaults: settings that it leaves open, with what was taken.
        where: the file with the settings.
        notes: what a reader should know, such as rows left out.
    """

    name: str
    path: Path
    client: bool
    requests: Requests
    ttft_s: Floats
    e2e_s: Floats
    itl_s: Floats | None = None
    series: Series | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, object] = field(default_factory=dict)
    where: str | None = None
    notes: Sequence[str] = ()

    @property
    def tpot_s(self) -> Floats:
        """Time per output token after the first [s]; NaN for one token."""
        gaps = self.requests.output - 1.0
        tpot = np.full(len(gaps), np.nan)
        np.divide(self.e2e_s - self.ttft_s, gaps, out=tpot, where=gaps > 0)
        return tpot


def read_folder(path: Path, given: Collection[str] = (), search: Sequence[Path] = ()) -> Measured:
    """Read a folder.

    Args:
        path: the folder.
        given: keys of the pool that the user gives instead of what the record says.
        search: further folders of the catalogue.

    Raises:
        InputError: something in it cannot be used; the message names file and line.
    """
    for name in ("requests.jsonl", "meta.json"):
        if not (path / name).is_file():
            raise InputError("measured", str(path), f"a folder with requests.jsonl and meta.json; {name} is missing")
    where = str(path / "meta.json")
    meta = parse_json(read_text(path / "meta.json"), where)
    stated = read_meta(meta, where, given)
    if "xpu" not in given:
        stated.pool["xpu"] = _device(stated.device, stated.device_bytes, meta, path, search)
        if stated.device is None:
            stated.defaults["xpu"] = f"{stated.pool['xpu']}, by the folder's name"
    rows = list(_stamped(path / "requests.jsonl"))
    if not rows:
        raise InputError("requests.jsonl", str(path), "a file with at least one request")
    table = np.array([row[:5] for row in rows])
    order = np.argsort(table[:, 2], kind="stable")
    prompt, output, queued, first, last = table[order].T
    epochs, texts = [row[5] for row in rows], [row[6] for row in rows]
    if any(text is None for text in texts) != all(text is None for text in texts):
        accepted = "the token ids of every prompt, or of none"
        raise InputError("input_tok_ids", None, accepted, str(path / "requests.jsonl"))
    return Measured(
        name=path.resolve().name,
        path=path,
        client=False,
        requests=requests_of(queued, prompt, output, [texts[i] for i in order.tolist() if texts[i] is not None]),
        ttft_s=first - queued,
        e2e_s=last - queued,
        series=_series(path / "timeseries.csv", meta, epochs[int(order[0])]),
        stated=stated.pool,
        defaults=stated.defaults,
        where=where,
    )


def _device(name: str | None, memory: float | None, meta: Any, path: Path, search: Sequence[Path]) -> str:
    """The xPU by the device's name, else by that of the folder."""
    if name is not None:
        return xpu_named(name, search, memory)
    try:
        return xpu_named(path.resolve().name, search)
    except InputError as error:
        accepted = "a meta.json with hardware.device_name, or a folder named after its device, or xpu=ID beside it"
        raise InputError("hardware.device_name", None, accepted, str(path / "meta.json")) from error


def _stamped(path: Path) -> Iterator[tuple[float, float, float, float, float, float | None, list[int] | None]]:
    """Prompt, output, queued, first and last stamp, epoch of arrival and token ids of the prompt (or None) of each
    request of the file."""
    origin: float | None = None
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        where = f"{path} line {line}"
        row = parse_json(text, where)
        if not isinstance(row, dict):
            raise InputError("row", text[:40], "a JSON object with one request", where)
        prompt, output = (_value(row, name, integer(1), where) for name in ("input_toks", "output_toks"))
        stamps = [_value(row, name, FINITE, where) for name in _STAMPS if name != "scheduled_ts" or name in row]
        origin = stamps[0] if origin is None else origin
        ordered = all(a <= b for a, b in pairwise(stamps))
        if not ordered or stamps[-1] - stamps[0] > LONGEST_S or abs(stamps[0] - origin) > LONGEST_S:
            raise InputError("queued_ts", stamps[0], f"{_CLOCKS}; this line has {stamps[1:]}", where)
        epoch = row.get("arrival_time")
        known = None if epoch is None else _value(row, "arrival_time", FINITE, where)
        yield prompt, output, stamps[0], stamps[-2], stamps[-1], known, _token_ids(row, int(prompt), where)


def _token_ids(row: Mapping[str, Any], prompt: int, where: str) -> list[int] | None:
    """The prompt itself, where a row has it."""
    ids = row.get("input_tok_ids")
    if ids is None:
        return None
    if not isinstance(ids, list) or len(ids) != prompt or not all(type(each) is int for each in ids):
        found = f"{len(ids)} values" if isinstance(ids, list) else type(ids).__name__
        raise InputError("input_tok_ids", found, f"a list of input_toks ({prompt}) whole numbers", where)
    return ids


def _series(path: Path, meta: Any, first_epoch: float | None) -> Series | None:
    """The engine's log by second, if there is one; its clock starts with the run, ours with the first request."""
    if not path.is_file():
        return None
    names = ("t", "running", "waiting", "gen_throughput", "kv_cache_pct")
    rows = read_table(path, {name: (name,) for name in names}, {})
    need(rows, ("t",), path)
    columns = {
        name: np.array([row.not_negative(name) for row in rows]) if name in rows[0].names else None for name in names
    }
    kv, t = columns["kv_cache_pct"], columns["t"]
    assert t is not None
    tick = meta.get("tick_seconds")
    return Series(
        t_s=t - _delay_s(meta.get("started_at"), first_epoch),
        tick_s=float(tick) if isinstance(tick, int | float) and tick > 0 else 1.0,
        running=columns["running"],
        waiting=columns["waiting"],
        tokens_per_s=columns["gen_throughput"],
        kv_use=kv / 100.0 if kv is not None and kv.any() else None,  # all zero: the engine did not log it
    )


def _delay_s(started: object, first_epoch: float | None) -> float:
    """From the start of the log to the first request [s]; 0 where the record does not tell."""
    if not isinstance(started, str) or first_epoch is None:
        return 0.0
    try:
        delay = first_epoch - datetime.fromisoformat(started).timestamp()
    except ValueError:
        return 0.0
    return delay if 0.0 <= delay < 3600.0 else 0.0


def requests_of(arrival: Floats, prompt: Floats, output: Floats, texts: Sequence[list[int]] = ()) -> Requests:
    """Sorted columns as a workload that begins at 0; texts: the prompts as token ids, where they are known."""
    return Requests(arrival - arrival[0], prompt.astype(np.int64), output.astype(np.int64), texts=texts or None)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("measured", str(path), f"a readable file in UTF-8 ({one_line(error)})") from None


def parse_json(text: str, where: str) -> Any:
    """A parsed JSON text; errors name the line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = where if " line " in where else f"{where} line {error.lineno}"
        raise InputError("measured", text[error.pos : error.pos + 20], f"JSON ({error.msg})", place) from None
    except RecursionError:
        raise InputError("measured", where, "JSON that is not nested without end") from None


def _value(row: Mapping[str, Any], name: str, check: Check[float], where: str) -> float:
    if name not in row:
        raise InputError(name, None, f"a value in every row; this one has {', '.join(row)}", where)
    return checked(name, row[name], check, where)


def checked(name: str, value: object, check: Check[float], where: str) -> float:
    """`value` after `check`, whose errors say where it stands."""
    try:
        return check(name, value)
    except InputError as error:
        raise InputError(error.key, error.value, error.accepted, where) from None

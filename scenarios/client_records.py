"""Measured runs as a client recorded them: the JSON of vLLM's serving benchmark, and any CSV by column mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scenarios.measured import FINITE, LONGEST_S, Measured, checked, parse_json, read_text, requests_of
from scenarios.schema import Check, integer, number
from scenarios.table_file import need, read_table
from sim.errors import InputError
from sim.workload.readers import SECONDS

_CSV_FIELDS = {
    "arrival": ("queued_ts", "arrival_s", "start_time"),
    "prompt": ("input_toks", "prompt_tokens", "input_len"),
    "output": ("output_toks", "output_tokens", "output_len"),
    "first": ("first_token_ts",),
    "last": ("last_token_ts",),
    "ttft": ("ttft_s", "ttft"),
    "e2e": ("e2e_s", "e2e", "latency"),
}
_TIME: Check[float] = number("a time >= 0 s", low=0.0)


def read_benchmark(path: Path) -> Measured:
    """The JSON of ``vllm bench serve --save-result --save-detailed``; its TTFT and gaps are in seconds."""
    where = str(path)
    content = parse_json(read_text(path), where)
    if not isinstance(content, dict):
        raise InputError("measured", where, "the JSON object that vLLM's serving benchmark saves")
    lists = {name: _list(content, name, where) for name in ("input_lens", "output_lens", "ttfts", "itls")}
    count = len(lists["input_lens"])
    if content.get("start_times") is None and content.get("request_rate") in ("inf", float("inf")):
        lists["start_times"] = [0.0] * count
    else:
        lists["start_times"] = _list(content, "start_times", where)
    errors = content.get("errors") or [""] * count
    for name, values in {**lists, "errors": errors}.items():
        if len(values) != count:
            raise InputError(name, len(values), f"as many entries as input_lens ({count})", where)
    kept = [i for i in range(count) if not errors[i]]
    if not kept:
        raise InputError("errors", count, "at least one request that did not fail", where)
    rows = np.array([_benchmark_row(lists, i, where) for i in kept])
    order = np.argsort(rows[:, 0], kind="stable")
    start, prompt, output, ttft, e2e = rows[order].T
    gaps = np.array([gap for i in kept for gap in lists["itls"][i]], dtype=np.float64)
    model = content.get("model_id")
    failed = count - len(kept)
    return Measured(
        name=path.stem,
        path=path,
        client=True,
        requests=requests_of(start, prompt, output),
        ttft_s=ttft,
        e2e_s=e2e,
        itl_s=gaps if len(gaps) else None,
        stated={"model": model} if isinstance(model, str) else {},
        where=where,
        notes=[f"{failed} failed request{'s' * (failed != 1)} left out"] if failed else [],
    )


def _benchmark_row(lists: Mapping[str, list[Any]], i: int, where: str) -> tuple[float, float, float, float, float]:
    """Start, prompt, output, TTFT and E2E of one request."""

    def value(name: str, check: Check[float]) -> float:
        return checked(f"{name}[{i}]", lists[name][i], check, where)

    gaps = lists["itls"][i]
    if not isinstance(gaps, list):
        raise InputError(f"itls[{i}]", gaps, "a list of gaps [s]", where)
    ttft = value("ttfts", _TIME)
    e2e = ttft + sum(checked(f"itls[{i}]", gap, _TIME, where) for gap in gaps)
    return value("start_times", FINITE), value("input_lens", integer(1)), value("output_lens", integer(1)), ttft, e2e


def read_csv(path: Path, columns: Mapping[str, str], time_unit: str) -> Measured:
    """A CSV file: stamps of the first and last token on the clock of the arrival, or durations from it."""
    if time_unit not in SECONDS:
        raise InputError("time_unit", time_unit, " | ".join(SECONDS))
    rows = read_table(path, _CSV_FIELDS, columns)
    stamps = "first" in rows[0].names and "ttft" not in columns
    first, last = ("first", "last") if stamps else ("ttft", "e2e")
    need(rows, ("arrival", "prompt", "output", first, last), path)
    values = []
    for row in rows:
        times = [row.any_number(name) * SECONDS[time_unit] for name in ("arrival", first, last)]
        arrival, ttft, e2e = times if not stamps else (times[0], times[1] - times[0], times[2] - times[0])
        if not 0.0 <= ttft <= e2e <= LONGEST_S:
            accepted = "a first and a last token that follow the arrival, on one clock"
            raise InputError(row.names[first], row.cells[first], accepted, row.where)
        values.append((arrival, row.whole("prompt"), row.whole("output"), ttft, e2e))
    table = np.array(values)
    arrival, prompt, output, ttft, e2e = table[np.argsort(table[:, 0], kind="stable")].T
    return Measured(path.stem, path, True, requests_of(arrival, prompt, output), ttft, e2e, where=str(path))


def _list(content: Mapping[str, Any], name: str, where: str) -> list[Any]:
    value = content.get(name)
    if not isinstance(value, list) or not value:
        accepted = "a list with an entry a request: save the benchmark with --save-result --save-detailed"
        raise InputError(name, value, accepted, where)
    return value

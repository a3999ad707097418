"""Replays a measured run: the same requests at the same times, on a pool with the same settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis import gaps
from analysis.agreement import Section, Side, compare, throughput
from analysis.plots.agreement import Lines
from scenarios.client_records import read_benchmark, read_csv
from scenarios.deployment import plain_keys, pool_of, serve
from scenarios.measured import Measured, read_folder
from sim.errors import InputError
from sim.fleet.spec import Pool
from sim.results import GapSample, Result


@dataclass(frozen=True, slots=True)
class Replay:
    """A measured run beside its simulation.

    Attributes:
        record: what was measured.
        pool: what was simulated.
        measured, simulated: every request on either side.
        lines: both over time, as far as the record knows.
    """

    record: Measured
    pool: Pool
    measured: Side
    simulated: Side
    lines: tuple[Lines, Lines]

    @property
    def agreement(self) -> Section:
        """Statistics of both, and their errors."""
        return compare(self.measured, self.simulated)

    @property
    def tokens_per_s(self) -> Section:
        """Output tokens per second of both."""
        return throughput(self.measured, self.simulated)

    def describe(self) -> list[str]:
        """What was replayed, and what had to be assumed."""
        pool, record = self.pool, self.record
        engine = pool.engine
        lines = [
            f"{record.name}: {len(record.ttft_s)} requests, {pool.model.id} in {pool.precision} on "
            f"{pool.replicas * pool.xpus_per_replica} x {pool.xpu.id}; {engine.max_num_seqs} sequences, "
            f"{engine.max_num_batched_tokens} tokens a step, "
            f"{engine.kv_blocks or 'derived'} KV blocks of {engine.block_size}",
            "times of the client: they contain network and front end, the simulated ones do not"
            if record.client
            else "times of the engine, from the moment a request is queued; prompts are taken "
            + ("for distinct" if record.requests.texts is None else "as their token ids say"),
        ]
        if record.defaults:
            taken = ", ".join(
                f"{name} {'derived' if value is None else value}" for name, value in record.defaults.items()
            )
            lines.append(f"not in the record, taken: {taken}")
        return [*lines, *record.notes]


def read(
    path: Path,
    given: Mapping[str, Any],
    columns: Mapping[str, str] | None = None,
    time_unit: str = "s",
    search: Sequence[Path] = (),
) -> Measured:
    """Read a measured run.

    Args:
        path: a folder, or a file that ends in ``.json`` or ``.csv``.
        given: keys of the pool that the user gives instead of what the record says.
        columns: CSV only: column by field (arrival, prompt, output, and first and last, or ttft and e2e).
        time_unit: CSV only: s | ms | us | ns.
        search: further folders of the catalogue.

    Raises:
        InputError: something in it cannot be used; the message names file and line.
    """
    if path.is_dir():
        return read_folder(path, given, search)
    if not path.exists():
        raise InputError("measured", str(path), "a folder or file that exists")
    if path.suffix == ".json":
        return read_benchmark(path)
    if path.suffix == ".csv":
        return read_csv(path, columns or {}, time_unit)
    raise InputError("measured", str(path), "a folder with requests.jsonl and meta.json, a .json or a .csv file")


def replay(record: Measured, given: Mapping[str, Any], search: Sequence[Path] = ()) -> Replay:
    """Simulate a measured run.

    Args:
        record: the run.
        given: the user's own keys of the pool; they replace what the record states.
        search: further folders of the catalogue.

    Raises:
        InputError: a setting is missing or cannot be used, or a request does not fit the pool.
    """
    for key in ("model", "xpu"):
        if key not in record.stated and key not in given:
            raise InputError(key, None, f"{key}=ID beside the record, which does not name it", record.where)
    pool = pool_of(record.stated, given, search, record.where)
    with plain_keys(given, record.where):
        result = serve(pool, record.requests, bin_s=record.series.tick_s if record.series else None)
    return Replay(record, pool, _measured(record), _simulated(result), (_logged(record), _timeline(result)))


def _measured(record: Measured) -> Side:
    arrival, output = record.requests.arrival_s, record.requests.output
    itl = None
    if record.itl_s is not None:
        value, count = np.unique(record.itl_s, return_counts=True)
        itl = GapSample(value, count)
    makespan = float((arrival + record.e2e_s).max() - arrival[0])
    return Side(record.ttft_s, record.tpot_s, record.e2e_s, makespan, int(output.sum()), itl)


def _simulated(result: Result) -> Side:
    column = result.requests
    makespan = float((column["arrival_s"] + column["e2e_s"]).max() - column["arrival_s"][0])
    itl = gaps.merge(sample for _, sample in sorted(result.gaps.items()))
    return Side(column["ttft_s"], column["tpot_s"], column["e2e_s"], makespan, int(column["output_tokens"].sum()), itl)


def _logged(record: Measured) -> Lines:
    arrival = record.requests.arrival_s
    own = Lines(arrival, arrival + record.e2e_s)
    if record.series is None:
        return own
    s = record.series
    known = {"running": s.running, "waiting": s.waiting, "tokens_per_s": s.tokens_per_s, "kv_use": s.kv_use}
    return Lines(own.start_s, own.end_s, s.t_s, {name: values for name, values in known.items() if values is not None})


def _timeline(result: Result) -> Lines:
    column, time = result.requests, result.timeline
    return Lines(
        column["arrival_s"],
        column["arrival_s"] + column["e2e_s"],
        time["t_s"] + 0.5 * time["bin_s"],
        {
            "running": time["running"],
            "waiting": time["queue"],
            "tokens_per_s": time["output_tokens"] / time["bin_s"],
            "kv_use": time["kv_use"],
        },
    )

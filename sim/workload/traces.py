"""Requests replayed from a trace file: a window of it, at its own rate or a multiple."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from sim.errors import InputError
from sim.qoe import SLOClass
from sim.rng import Streams
from sim.workload import checks
from sim.workload.base import RequestBatch
from sim.workload.layouts import FIELDS, LAYOUTS, TIME_UNITS, TRAIT_FIELDS
from sim.workload.lengths import IntArray
from sim.workload.readers import BLOCK, Rows, TraceFile
from sim.workload.synthetic import draw_slo_classes
from sim.workload.trait_columns import MAX_LABEL
from sim.workload.traits import TraitColumns, TraitDraws, TraitModel


class TraceWorkload:
    """A workload that replays a trace, streaming: memory stays flat however large the file is.

    Trace time counts from the first row of the file. The window [start_s, start_s + duration_s) is cut out in trace
    time, then `rate_scale` divides all gaps, and the start of the window becomes t = 0.

    Args:
        path: the file, plain or ``.gz``.
        format: ``auto``, or a key of `sim.workload.layouts.LAYOUTS`.
        columns: names of the columns (or JSON keys) by field: arrival, prompt, output, and what sets requests apart:
            tenant, priority, deadline_s, adapter, images, image_tokens, private, reasoning_tokens. For others the
            format's own hold.
        time_unit: s | ms | us | ns | datetime, or None for the format's own.
        rate_scale: 2 doubles the rate.
        start_s, duration_s: window in trace time [s]; a duration of None reaches to the end.
        limit: most requests; None for no bound.
        slo_classes: what the classes of requests expect.
        slo_class: class of every request; None follows `slo_mix`.
        slo_mix: weight of each class, drawn at random; None puts every request into the first.
        sort: accept rows out of order; reads the whole file into memory.
        drop_failed: leave out rows without output tokens; None does so in the BurstGPT format only, where they are
            failed requests. `dropped` counts them, of the rows read so far.
        prefix_unit: tokens that a hash in the trace stands for, where the format has hashes.
        tenants, priorities, deadlines, adapters, images, privacy, reasoning: what sets requests apart, drawn for what
            the trace does not tell; see `sim.workload.traits`. Images are part of the prompt unless ``images.added``.
    """

    def __init__(
        self,
        path: str | Path,
        format: str = "auto",
        columns: Mapping[str, str] | None = None,
        time_unit: str | None = None,
        rate_scale: float = 1.0,
        start_s: float = 0.0,
        duration_s: float | None = None,
        limit: int | None = None,
        slo_classes: Sequence[SLOClass] = (SLOClass(),),
        slo_class: int | None = None,
        slo_mix: Sequence[float] | None = None,
        sort: bool = False,
        drop_failed: bool | None = None,
        prefix_unit: int = 512,
        tenants: object = None,
        priorities: object = None,
        deadlines: object = None,
        adapters: object = None,
        images: object = None,
        privacy: object = None,
        reasoning: object = None,
    ) -> None:
        self.rate_scale = checks.number("workload.rate_scale", rate_scale, "a factor > 0 (1e-9 to 1e9)", 1e-9, 1e9)
        self.start_s = checks.number("workload.start_s", start_s, "a time >= 0 s", 0.0)
        self.duration_s = checks.duration(duration_s, "or null for the whole trace")
        self.limit = checks.limit("workload.limit", limit)
        self.slo_classes = checks.slo_classes(slo_classes)
        self._slo_shares = checks.slo_mix(slo_mix, self.slo_classes)
        self._slo_class = slo_class
        if slo_class is not None:
            self._slo_class = checks.whole("workload.slo_class", slo_class, 0, len(self.slo_classes) - 1)
        self.sort = checks.flag("workload.sort", sort)
        self.file = TraceFile(_path(path), _choice("workload.format", format), _columns(columns), _unit(time_unit))
        self.drop_failed = (
            self.file.drop_failed if drop_failed is None else checks.flag("workload.drop_failed", drop_failed)
        )
        self.dropped = 0
        unit = checks.whole("workload.prefix_unit", prefix_unit, 1, checks.MAX_TOKENS)
        self.prefix_unit = unit if self.file.hashes else 0
        own = tuple(self.file.traits)
        drawn = (tenants, priorities, deadlines, adapters, images)
        more = {"privacy": privacy, "reasoning": reasoning}
        self.traits = TraitModel(self.slo_classes, *drawn, added=False, own=own, **more)

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        """Yield requests in order of arrival, some 8,000 at a time.

        Raises:
            InputError: a row is malformed or out of order (the message names file and line), or no request is left.
        """
        slo_rng = streams.get("slo")
        draws = self.traits.start(streams) if self.traits.active else None
        sent, end_s = 0, self.start_s + self.duration_s
        last_s = 0.0
        for rows in self._ordered():
            last_s = float(rows.arrival_s[-1])
            first, last = np.searchsorted(rows.arrival_s, [self.start_s, end_s], side="left")
            if self.limit is not None:
                last = min(last, first + self.limit - sent)
            if last > first:
                batch = self._batch(rows, slice(first, last), slo_rng)
                if draws is not None:
                    self._set_traits(batch, rows, slice(first, last), draws)
                yield batch
                sent += len(batch)
            if last_s >= end_s or sent == self.limit:
                break
        if not sent:
            accepted = f"a window with at least one request (trace time was read up to {last_s:g} s"
            accepted += f", {self.dropped} failed requests left out)" if self.dropped else ")"
            key, value = ("start_s", self.start_s) if self.start_s > last_s else ("path", str(self.file.path))
            raise InputError(f"workload.{key}", value, accepted)

    def expected_requests(self) -> float | None:
        """About how many requests will come, from the size of the file; None with a window or a packed file."""
        path = self.file.path
        if self.start_s > 0.0 or math.isfinite(self.duration_s) or path.suffix == ".gz":
            return None
        with open(path, "rb") as file:
            sample = file.read(1 << 18)
        rows = sample.count(b"\n") / max(len(sample), 1) * path.stat().st_size
        return rows if self.limit is None else min(rows, self.limit)

    def _batch(self, rows: Rows, part: slice, slo_rng: np.random.Generator) -> RequestBatch:
        """The requests of a part of the rows."""
        arrival_s = (rows.arrival_s[part] - self.start_s) / self.rate_scale
        classes = self._classes(slo_rng, len(arrival_s))
        hashes = None if rows.hashes is None else rows.hashes[part]
        return RequestBatch(arrival_s, rows.prompt[part], rows.output[part], classes, hashes=hashes)

    def _set_traits(self, batch: RequestBatch, rows: Rows, part: slice, draws: TraitDraws) -> None:
        """Give requests what the trace tells of them, and what is drawn."""
        columns = TraitColumns() if rows.traits is None else rows.traits.take(part)
        draws.senders(columns, batch.slo_class)
        batch.prompt_tokens = draws.images(columns, batch.prompt_tokens)
        batch.output_tokens = draws.reasoning(columns, batch.output_tokens)
        draws.deadlines(columns, batch.slo_class, batch.output_tokens)
        batch.traits = columns.rows()
        if batch.hashes is not None and columns.adapter is not None:
            # KV of the same tokens under another adapter is other KV: the names of its units must differ.
            batch.hashes = [
                tuple(name * MAX_LABEL + adapter for name in names)
                for names, adapter in zip(batch.hashes, columns.adapter.tolist())
            ]

    def _ordered(self) -> Iterator[Rows]:
        """Yield rows that never go back in time, without failed requests; no block is empty."""
        blocks = self._checked()
        if not self.sort:
            yield from blocks
            return
        parts = list(blocks)
        if parts:
            whole = Rows.join(parts)
            order = np.argsort(whole.arrival_s, kind="stable")
            whole.arrival_s -= whole.arrival_s[order[0]]
            for start in range(0, len(order), BLOCK):
                yield whole.take(order[start : start + BLOCK])

    def _checked(self) -> Iterator[Rows]:
        """Yield rows whose order and outputs are checked."""
        self.dropped, last_s, anything = 0, 0.0, False
        for rows in self.file.blocks():
            anything = True
            if not self.sort:
                self._refuse_disorder(rows, last_s)
                last_s = float(rows.arrival_s[-1])
            failed = rows.output == 0
            if failed.any():
                rows = self._without(rows, failed)
            if len(rows.arrival_s):
                yield rows
        if not anything:
            raise InputError("workload.path", str(self.file.path), "a trace with at least one request (this has none)")

    def _refuse_disorder(self, rows: Rows, last_s: float) -> None:
        falls = np.diff(rows.arrival_s, prepend=last_s) < 0.0
        if falls.any():
            at = int(np.argmax(falls))
            before = last_s if at == 0 else float(rows.arrival_s[at - 1])
            accepted = f"at least that of the row before ({before:.7g}), or workload.sort=true to sort in memory"
            value = f"{float(rows.arrival_s[at]):.7g} s after the first row"
            raise InputError(self.file.names[0], value, accepted, self.file.where(rows.lines[at]))

    def _without(self, rows: Rows, failed: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Rows:
        if not self.drop_failed:
            line = rows.lines[int(np.argmax(failed))]
            accepted = "at least 1 token, or workload.drop_failed=true to leave such rows out"
            raise InputError(self.file.names[2], 0, accepted, self.file.where(line))
        self.dropped += int(failed.sum())
        return rows.take(np.flatnonzero(~failed))

    def _classes(self, rng: np.random.Generator, n: int) -> IntArray:
        if self._slo_class is not None:
            return np.full(n, self._slo_class, dtype=np.int64)
        return draw_slo_classes(rng, self._slo_shares, n)


def _path(value: str | Path) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise InputError("workload.path", value, "the path of a trace file")
    return Path(value).expanduser()


def _choice(key: str, value: str) -> str:
    if not isinstance(value, str) or value not in ("auto", *LAYOUTS):
        raise InputError(key, value, " | ".join(["auto", *LAYOUTS]))
    return value


def _unit(value: str | None) -> str | None:
    if value is not None and value not in TIME_UNITS:
        raise InputError("workload.time_unit", value, " | ".join(TIME_UNITS) + ", or null for the format's own")
    return value


def _columns(value: Mapping[str, str] | None) -> Mapping[str, str] | None:
    accepted = "a mapping of " + " | ".join((*FIELDS, *TRAIT_FIELDS)) + " to names of columns, or null"
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InputError("workload.columns", value, accepted)
    for field, name in value.items():
        if field not in (*FIELDS, *TRAIT_FIELDS) or not (name is None or (isinstance(name, str) and name)):
            raise InputError(f"workload.columns.{field}", name, accepted)
    return {field: name for field, name in value.items() if name is not None}

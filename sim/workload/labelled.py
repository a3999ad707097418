"""Questions whose answers by several models were judged: their labels replayed, one request a question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sim.errors import InputError
from sim.qoe import SLOClass
from sim.rng import Streams
from sim.workload import checks
from sim.workload.arrivals import CHUNK, ArrivalProcess
from sim.workload.base import RequestBatch
from sim.workload.label_file import FIELDS, LabelFile, read_labels
from sim.workload.lengths import FloatArray, IntArray, LengthModel
from sim.workload.synthetic import SyntheticWorkload


class LabelledTrace:
    """A workload that asks the questions of a file.

    Lengths and arrivals that the file does not have are drawn. Without a limit or a duration each question is asked
    once; with them, the questions come again from the first one after the last.

    Args:
        path: CSV with a header, plain or ``.gz``.
        arrivals, lengths: what to draw where the file does not tell; see `sim.workload.synthetic`.
        labels: column by name of the label: ``weak``, ``strong``, the id of a model or the name of a pool; None takes
            every column that ends in ``_correct``, such as ``weak_correct``.
        columns: column by field (arrival [s], prompt and output [tokens], or prompt_chars and output_chars); of fields
            left out, the usual names count (`sim.workload.label_file.FIELDS`).
        chars_per_token: characters a token, where the file has characters.
        shuffle: True asks in random order; a file with arrivals keeps its own.
        duration_s, limit, slo_classes, slo_mix: as in `SyntheticWorkload`.
        settings: traits and prefixes, and numbers of the configuration's top level, as in `SyntheticWorkload`.

    Attributes:
        labels: by name, one value a question.
    """

    def __init__(
        self,
        path: str | Path,
        arrivals: ArrivalProcess,
        lengths: LengthModel,
        labels: Mapping[str, str] | None = None,
        columns: Mapping[str, str] | None = None,
        chars_per_token: float = 4.0,
        shuffle: bool = False,
        duration_s: float | None = None,
        limit: int | None = None,
        slo_classes: Sequence[SLOClass] = (SLOClass(),),
        slo_mix: Sequence[float] | None = None,
        **settings: object,
    ) -> None:
        if not isinstance(path, str | Path) or not str(path):
            raise InputError("workload.path", path, "the path of a CSV file with labels")
        self._file = read_labels(Path(path).expanduser(), _names("labels", labels), _names("columns", columns) or {})
        self.labels = self._file.labels
        chars = checks.number("workload.chars_per_token", chars_per_token, "characters > 0", 1e-3, 1e6)
        self._known = _tokens(self._file, chars)
        self._timed = "arrival" in self._file.fields
        self._shuffle = checks.flag("workload.shuffle", shuffle)
        count = len(self._file)
        if limit is not None and self._timed:
            limit = min(checks.whole("workload.limit", limit, 1, 2**53, "requests"), count)
        if limit is None and (duration_s is None or self._timed):
            limit = count
        self._common = {"duration_s": duration_s, "limit": limit, "slo_classes": slo_classes, "slo_mix": slo_mix}
        self._drawn = SyntheticWorkload(arrivals, lengths, **self._common, **settings)  # type: ignore[arg-type]
        parts = {key for part in (arrivals, lengths) for key in vars(part)}
        self._traits = {key: value for key, value in settings.items() if key not in parts}
        self.slo_classes, self.prefix_unit = self._drawn.slo_classes, self._drawn.prefix_unit

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        """Yield requests in order of arrival, some 4,000 at a time."""
        order = np.arange(len(self._file))
        if self._shuffle and not self._timed:
            order = streams.get("questions").permutation(order)
        arrivals = _Times(self._file.fields["arrival"]) if self._timed else self._drawn.arrivals
        lengths = _Lengths(self._drawn.lengths, self._known, order)
        inner = SyntheticWorkload(arrivals, lengths, **self._common, **self._traits)  # type: ignore[arg-type]
        asked = 0
        for batch in inner.batches(streams):
            batch.question = order[(asked + np.arange(len(batch))) % len(order)]
            asked += len(batch)
            yield batch

    def expected_requests(self) -> float | None:
        """About how many requests will come."""
        return float(len(self._file)) if self._timed else self._drawn.expected_requests()


@dataclass(slots=True)
class _Lengths:
    """Lengths of the questions in their order, drawn where the file does not know them."""

    drawn: LengthModel
    known: Mapping[str, IntArray]
    order: IntArray
    asked: int = field(default=0)

    def sample(self, rng: np.random.Generator, n: int) -> tuple[IntArray, IntArray]:
        """The next `n` prompt and output lengths [tokens]."""
        rows = self.order[(self.asked + np.arange(n)) % len(self.order)]
        self.asked += n
        prompt, output = self.drawn.sample(rng, n)
        return (
            self.known["prompt"][rows] if "prompt" in self.known else prompt,
            self.known["output"][rows] if "output" in self.known else output,
        )


@dataclass(frozen=True, slots=True)
class _Times:
    """Arrivals of the file."""

    arrival_s: FloatArray

    def times(self, rng: np.random.Generator) -> Iterator[FloatArray]:
        """Yield arrival times [s] after the first."""
        for start in range(0, len(self.arrival_s), CHUNK):
            yield self.arrival_s[start : start + CHUNK] - self.arrival_s[0]


def _tokens(file: LabelFile, chars_per_token: float) -> dict[str, IntArray]:
    """Lengths that the file has [tokens], at least 1; tokens go before characters."""
    found = {}
    for name in ("prompt", "output"):
        if name in file.fields:
            found[name] = file.fields[name].astype(np.int64)
        elif f"{name}_chars" in file.fields:
            found[name] = np.maximum(np.rint(file.fields[f"{name}_chars"] / chars_per_token), 1.0).astype(np.int64)
    return found


def _names(key: str, value: object) -> dict[str, str] | None:
    """A mapping to names of columns, those that are null left out."""
    if value is None:
        return None
    accepted = "a mapping to names of columns" + (f", of {', '.join(FIELDS)}" if key == "columns" else "") + ", or null"
    if not isinstance(value, Mapping):
        raise InputError(f"workload.{key}", value, accepted)
    for name, column in value.items():
        known = key == "labels" or name in FIELDS
        if not known or not (column is None or (isinstance(column, str) and column)):
            raise InputError(f"workload.{key}.{name}", column, accepted)
    return {str(name): column for name, column in value.items() if column is not None}

"""`python -m tests.benchmarks.attribution [PAIRS]`: what telling whose joules, grams and dollars are adds to a run.

CPU time of runs of the common trace as they are, and of the same runs without any request's share: the engines then
keep no running totals and settle nobody, and no accounting columns are made. Runs alternate, so that both kinds meet
the same neighbours.
"""

from __future__ import annotations

import inspect
import statistics
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from sim import closing, run
from sim.routing import LeastOutstanding
from sim.serving.decode_set import DecodeSet
from sim.serving.spans import Spans
from tests.benchmarks.cases import common_trace, fleet

#: beginnings of the lines of `Spans.commit` that keep shares; each must be found, or this file is out of date
KEEPING = (
    "self._by_context +=", "self._by_moment +=", "self._equal +=", "pairs, pairs_w =", "own =", "seq.prefill += own",
)  # fmt: skip


def without_lines(function: Callable[..., Any], beginnings: tuple[str, ...]) -> Any:
    """A function without the lines that begin so."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    for beginning in beginnings:
        if not any(line.strip().startswith(beginning) for line in lines):
            raise RuntimeError(f"{function.__qualname__} has no line that begins with {beginning!r}")
    kept = [line for line in lines if not line.strip().startswith(beginnings)]
    names = dict(function.__globals__)
    exec("from __future__ import annotations\n" + "\n".join(kept), names)
    return names[function.__name__]


def seconds(workload: Any) -> float:
    """CPU time of a run [s]."""
    start = time.process_time()
    run(fleet(1), workload, LeastOutstanding(), seed=1)
    return time.process_time() - start


def main(pairs: int, workload: Any = None) -> None:
    """Measure on the common trace, or on a workload of one's own, and print."""
    workload = common_trace() if workload is None else workload
    whole = closing.request_columns
    names = list(_columns(workload))
    whole_commit, whole_settle = Spans.commit, DecodeSet.settle
    bare_commit = without_lines(Spans.commit, KEEPING)

    def no_columns(records: Any, pools: Any, end_s: float) -> Any:
        return {name: np.zeros(len(records["request_id"])) for name in names}

    rows = []
    for _ in range(pairs):
        with_shares = seconds(workload)
        closing.request_columns = no_columns
        Spans.commit, DecodeSet.settle = bare_commit, lambda self, seq: None  # type: ignore[method-assign, assignment]
        without = seconds(workload)
        closing.request_columns = whole
        Spans.commit, DecodeSet.settle = whole_commit, whole_settle  # type: ignore[method-assign]
        rows.append((with_shares, without))
    added = [one / other - 1.0 for one, other in rows]
    least = min(row[0] for row in rows), min(row[1] for row in rows)
    print(
        f"shares add {100.0 * statistics.median(added):.1f} % of CPU time (median of {pairs} pairs), "
        f"{100.0 * (least[0] / least[1] - 1.0):.1f} % by the fastest runs ({least[0]:.2f} against {least[1]:.2f} s)"
    )


def _columns(workload: Any) -> dict[str, Any]:
    """The accounting columns of a run; it also warms up."""
    found: dict[str, Any] = {}
    whole = closing.request_columns

    def kept(*arguments: Any) -> Any:
        found.update(whole(*arguments))
        return dict(found)

    closing.request_columns = kept
    run(fleet(1), workload, LeastOutstanding(), seed=1)
    closing.request_columns = whole
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)

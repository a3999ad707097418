"""Many short runs of composed configurations, in processes side by side: what comparisons are made of."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenarios.progress import LINE_EVERY_S, clock
from scenarios.schema import one_line
from sim.errors import InputError

#: Two where there are as many cores: more would not be faster on the machines that this is meant for.
PROCESSES = min(2, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Trial:
    """One run to do.

    Attributes:
        name: of the alternative.
        config: resolved configuration, its seed included.
        search: folders of the user's own entries.
        measure: what is kept of it, a function of a module: of the result and its summary to a row of numbers; None
            keeps `analysis.comparison.measures`.
    """

    name: str
    config: Mapping[str, Any]
    search: tuple[Path, ...] = ()
    measure: Callable[[Any, Mapping[str, Any]], dict[str, float | None]] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it.

    Attributes:
        row: its measures, or None where it was refused.
        incomplete: what its totals leave out, in words.
        refused: why, on one line; empty where it ran.
    """

    row: dict[str, float | None] | None
    incomplete: tuple[str, ...] = ()
    refused: str = ""


class Runner:
    """Runs trials in `processes` processes and shows on standard error how far they are.

    A run depends on its configuration alone, so results do not depend on how many processes there are.
    """

    def __init__(self, executor: ProcessPoolExecutor | None, quiet: bool) -> None:
        self._executor, self._quiet = executor, quiet

    def run(self, trials: Sequence[Trial], label: str = "") -> list[Outcome]:
        """Do all trials; outcomes in their order."""
        if self._executor is None:
            outcomes: Iterator[Outcome] = map(attempt, trials)
        else:
            outcomes = self._executor.map(attempt, trials)
        done, start = [], time.monotonic()
        last = start
        for outcome in outcomes:
            done.append(outcome)
            now = time.monotonic()
            if not self._quiet and now - last >= LINE_EVERY_S and len(done) < len(trials):
                last, left_s = now, (now - start) * (len(trials) - len(done)) / len(done)
                text = f"{label}{len(done)} of {len(trials)} runs done, about {clock(left_s)} left"
                print(text, file=sys.stderr, flush=True)
        return done


@contextmanager
def runner(processes: int, quiet: bool = False) -> Iterator[Runner]:
    """A `Runner`; its processes end with the context, whatever ends it."""
    if processes <= 1:
        yield Runner(None, quiet)
        return
    # Spawned, not forked: threads of libraries that have been imported do not survive a fork.
    executor = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield Runner(executor, quiet)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def attempt(trial: Trial) -> Outcome:
    """Build and run one trial; an error of the user's is its outcome."""
    from analysis.comparison import measures
    from analysis.metrics import summarize
    from scenarios.build import build

    try:
        result = build(trial.config, trial.search).run()
    except InputError as error:
        return Outcome(None, refused=one_line(error))
    summary = summarize(result)
    return Outcome((trial.measure or measures)(result, summary), tuple(summary["total"]["incomplete"]))

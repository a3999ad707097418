"""Shows how far a run is: a bar on a terminal, a plain line every few seconds elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, TextIO

MODES = ("auto", "bar", "lines", "none")
LINE_EVERY_S = 5.0  #: wall-clock seconds between two plain lines


class Progress(Protocol):
    """What the simulation reports. Times in simulated seconds; `end_s` and `expected` are None where unknown."""

    @property
    def sim_time_s(self) -> float: ...
    @property
    def end_s(self) -> float | None: ...
    @property
    def arrived(self) -> int: ...
    @property
    def done(self) -> int: ...
    @property
    def expected(self) -> float | None: ...


class Reporter:
    """Shows nothing; the base of the two that do. A context manager that is called with each `Progress`."""

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, progress: Progress) -> None:
        """Take note of the state."""


class Lines(Reporter):
    """A plain line every `LINE_EVERY_S` seconds: for log files and pipes."""

    def __init__(self, stream: TextIO, label: str = "") -> None:
        self._stream, self._label = stream, label
        self._start = self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Print a line where the last one is old enough."""
        now = time.monotonic()
        if now - self._last < LINE_EVERY_S:
            return
        self._last = now
        parts = [describe(progress)]
        left = time_left_s(progress, now - self._start)
        if left is not None:
            parts.append(f"about {clock(left)} left")
        print(f"{self._label}{', '.join(parts)}", file=self._stream, flush=True)


class Bar(Reporter):
    """A bar by rich: share done, simulated time, requests done, wall-clock time left."""

    def __init__(self, stream: TextIO, label: str = "") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[state]}"),
        )
        self._bar: Any = RichProgress(*columns, console=Console(file=stream, force_terminal=True), transient=True)
        self._task = self._bar.add_task(f"{label}simulating", total=None, state="")
        self._start = time.monotonic()

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        """Move the bar."""
        share = share_done(progress)
        left = time_left_s(progress, time.monotonic() - self._start)
        state = describe(progress) if left is None else f"{describe(progress)}, {clock(left)} left"
        self._bar.update(self._task, total=None if share is None else 1.0, completed=share or 0.0, state=state)


def reporter(mode: str, label: str = "", stream: TextIO | None = None) -> Reporter:
    """Return the reporter of a mode of `MODES`; ``auto`` is a bar on a terminal and plain lines elsewhere."""
    out = sys.stderr if stream is None else stream
    if mode == "none":
        return Reporter()
    if mode == "bar" or (mode == "auto" and out.isatty()):
        return Bar(out, label)
    return Lines(out, label)


def share_done(progress: Progress) -> float | None:
    """Share of the run that is done, in [0, 1], by requests or else by simulated time; None where neither is known."""
    if progress.expected:
        return min(1.0, progress.done / progress.expected)
    if progress.end_s:
        return min(1.0, progress.sim_time_s / progress.end_s)
    return None


def time_left_s(progress: Progress, elapsed_s: float) -> float | None:
    """Wall-clock time left if the rest goes as fast as the part done [s]; None where that cannot be told."""
    share = share_done(progress)
    return elapsed_s * (1.0 - share) / share if share else None


def describe(progress: Progress) -> str:
    """Simulated time and requests done, in words."""
    total = f" of about {progress.expected:,.0f}" if progress.expected else ""
    return f"{clock(progress.sim_time_s)} simulated, {progress.done:,}{total} requests done"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"

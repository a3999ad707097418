"""`run`: the main loop. A workload's requests meet a fleet under a router; tables come back.

Each request is one arrival event (`sim.live`); the router names a pool, the pool's link carries it there, a replica's
engine serves it (`sim.serving.engine`), and the observer keeps one record, of which tables are made at the end
(`sim.closing`). Nothing here knows files or configuration.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from simpy.core import EmptySchedule, StopSimulation

from sim.checks import check_parts, check_settings, check_signals
from sim.closing import close_books
from sim.fleet.spec import Fleet
from sim.live import LiveRun
from sim.quality import QualityModel
from sim.results import Result
from sim.routing.base import Router
from sim.workload.base import Workload

EVENTS_BETWEEN_LOOKS = 2000  #: events between two looks at the wall clock
PROGRESS_S = 0.1  #: wall-clock time between two reports [s]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        sim_time_s: simulated time [s]; end_s: where the horizon is, or None.
        arrived, done: requests so far; expected: about how many will come, or None.
    """

    sim_time_s: float
    end_s: float | None
    arrived: int
    done: int
    expected: float | None


def run(
    fleet: Fleet,
    workload: Workload,
    router: Router,
    *,
    seed: int = 0,
    warmup_s: float = 0.0,
    horizon_s: float | None = None,
    drain: bool = True,
    oversize: str = "error",
    timeline_bin_s: float | None = None,
    keep_spans: bool = False,
    progress: Callable[[Progress], None] | None = None,
    quality: QualityModel | None = None,
) -> Result:
    """Simulate one workload on one fleet.

    Args:
        fleet, workload, router: what runs.
        seed: root of every random stream.
        warmup_s: requests that arrive earlier do not count in what users experience [s].
        horizon_s: requests that would arrive at or after it do not come; None runs the workload to its end [s].
        drain: True serves what has arrived to its end; False stops at the horizon and leaves the rest in flight.
        oversize: what to do with a request that no pool can hold: ``error`` or ``reject``.
        timeline_bin_s: width of the timeline's bins; None keeps at most 1,000 [s].
        keep_spans: also return the spans of the step clocks.
        progress: called some times a second with how far the run is.
        quality: what is known about answers; None for nothing but the workload's labels.

    Raises:
        InputError: a value cannot be used; the message names it.
    """
    check_parts(fleet, workload, router)
    check_settings(warmup_s, horizon_s, drain, oversize, timeline_bin_s, seed)
    started = time.perf_counter()
    check_signals(fleet, horizon_s)
    state = LiveRun(fleet, workload, router, seed, horizon_s, drain, oversize, timeline_bin_s, keep_spans, quality)
    step = state.env.step
    if not drain:
        state.stop_at_horizon()
    state.next_arrival()
    next_report = 0.0
    try:
        while True:
            for _ in range(EVENTS_BETWEEN_LOOKS):
                step()
            if progress is not None and time.perf_counter() >= next_report:
                next_report = time.perf_counter() + PROGRESS_S
                progress(Progress(state.now, horizon_s, state.arrived, state.done, workload.expected_requests()))
    except (EmptySchedule, StopSimulation):
        pass  # everything has been served, or the horizon is reached
    return close_books(state, warmup_s, drain, started)

"""How many of a pool's replicas are provisioned when: by the hour of the clock, by a list of changes, or by load."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Protocol

from sim.accounting.clock import ClockSignal, hours_of
from sim.errors import InputError, number, provider, whole

if TYPE_CHECKING:
    from sim.fleet.spec import Pool

_COUNT = "a whole number of replicas >= 0"
_SATURDAY = 5


class Schedule(Protocol):
    """How many replicas are provisioned over the time of one run. It is asked at every change, in order."""

    def at(self, t_s: float) -> float:
        """Replicas at `t_s` [s], a whole number; it holds until `next_change(t_s)`."""
        ...

    def next_change(self, t_s: float) -> float:
        """First time after `t_s` at which the number may differ [s]; infinity if never."""
        ...


class Plan(Protocol):
    """How many replicas are to be provisioned: by the clock, or by load.

    Attributes:
        least, most: that it asks for whatever the load. What exceeds the pool's replicas is not there to be had.
    """

    @property
    def least(self) -> int: ...

    @property
    def most(self) -> int: ...

    def begin(self, outstanding: Callable[[], int]) -> Schedule:
        """The schedule of a run, in which `outstanding` tells the pool's unfinished requests."""
        ...


class ClockPlan(ClockSignal):
    """Replicas by the local hour.

    Args:
        hours: from each local hour on, 24 whole numbers.
        zone: IANA time zone, such as Europe/Berlin.
        start_utc: instant of simulated t = 0.
        weekend: the same for Saturdays and Sundays; None for `hours` on all days.
    """

    def __init__(
        self, hours: Sequence[int], zone: str, start_utc: str | date | None, weekend: Sequence[int] | None = None
    ) -> None:
        weekdays = _counts("plan.hours", hours)
        days_off = weekdays if weekend is None else _counts("plan.weekend", weekend)
        self.least, self.most = min(*weekdays, *days_off), max(*weekdays, *days_off)

        def value(local: datetime) -> float:
            return float((days_off if local.weekday() >= _SATURDAY else weekdays)[local.hour])

        super().__init__(value, zone, start_utc, "plan", "plan")

    def begin(self, outstanding: Callable[[], int]) -> ClockPlan:
        """See `Plan.begin`: the same in every run."""
        return self


def _counts(key: str, values: Sequence[int]) -> list[int]:
    hours_of(values, key, _COUNT)
    return [whole(key, each, _COUNT) for each in values]


class StepPlan:
    """Replicas from given times on.

    Args:
        steps: (from [s], replicas) in order of time; the first from 0 on.
    """

    def __init__(self, steps: Sequence[Sequence[float]]) -> None:
        accepted = "a list of [from_s, replicas], the first from 0 s on, in order of time"
        if isinstance(steps, str) or not isinstance(steps, Sequence) or not len(steps):
            raise InputError("plan", steps, accepted)
        self._from: list[float] = []
        self._counts: list[int] = []
        for index, step in enumerate(steps):
            if isinstance(step, str) or not isinstance(step, Sequence) or len(step) != 2:
                raise InputError(f"plan[{index}]", step, accepted)
            begins, count = step
            known = isinstance(begins, (int, float)) and not isinstance(begins, bool) and math.isfinite(begins)
            if not known or (begins <= self._from[-1] if self._from else begins != 0.0):
                raise InputError(f"plan[{index}]", list(step), accepted)
            self._from.append(float(begins))
            self._counts.append(whole(f"plan[{index}]", count, _COUNT))
        self.least, self.most = min(self._counts), max(self._counts)

    def begin(self, outstanding: Callable[[], int]) -> StepPlan:
        """See `Plan.begin`: the same in every run."""
        return self

    def at(self, t_s: float) -> float:
        """See `Schedule.at`."""
        return float(self._counts[max(bisect_right(self._from, t_s) - 1, 0)])

    def next_change(self, t_s: float) -> float:
        """See `Schedule.next_change`."""
        later = bisect_right(self._from, t_s)
        return self._from[later] if later < len(self._from) else math.inf


class LoadPlan:
    """Replicas that follow the load: enough for the requests outstanding, and fewer only after a while.

    Every `every_s`, as many are wanted as keep the mean number of unfinished requests a replica at
    `outstanding_per_replica` or below. More begin at once (and boot); fewer remain once no look within `down_after_s`
    has wanted more.

    Args:
        outstanding_per_replica: requests sent to the pool and unfinished, waiting ones included, for each replica.
        least: replicas that are always provisioned; one at least, for a pool without any takes no requests.
        every_s: between two looks [s]; down_after_s: how long fewer must be enough [s].

    Source: Kubernetes, horizontal pod autoscaling: ceil(current value / target value), a look every 15 s, fewer by the
    highest number wanted in the last 300 s. Its tolerance of 10 % and its limits on the pace of change are left out.
    """

    def __init__(
        self, outstanding_per_replica: float, least: int = 1, every_s: float = 15.0, down_after_s: float = 300.0
    ) -> None:
        self.target = number("plan.outstanding_per_replica", outstanding_per_replica, "a number > 0", above=0.0)
        self.least = self.most = whole("plan.least", least, "a whole number of replicas >= 1", low=1)
        self.every_s = number("plan.every_s", every_s, "a time > 0 s", above=0.0)
        self.down_after_s = number("plan.down_after_s", down_after_s, "a time >= 0 s", low=0.0)

    def begin(self, outstanding: Callable[[], int]) -> Schedule:
        """See `Plan.begin`."""
        return _Looks(self, outstanding)


class _Looks:
    """The schedule of a `LoadPlan` in one run."""

    def __init__(self, plan: LoadPlan, outstanding: Callable[[], int]) -> None:
        self._plan, self._outstanding = plan, outstanding
        self._wanted: deque[tuple[float, int]] = deque()  # (when, how many) of looks, each of more than all later ones

    def at(self, t_s: float) -> float:
        """See `Schedule.at`."""
        plan, wanted = self._plan, self._wanted
        now = max(plan.least, math.ceil(self._outstanding() / plan.target))
        while wanted and wanted[-1][1] <= now:
            wanted.pop()
        wanted.append((t_s, now))
        while wanted[0][0] < t_s - plan.down_after_s:
            wanted.popleft()
        return float(wanted[0][1])

    def next_change(self, t_s: float) -> float:
        """See `Schedule.next_change`."""
        every_s = self._plan.every_s
        return (math.floor(t_s / every_s + 1e-9) + 1) * every_s


def check_plan(key: str, pool: Pool) -> None:
    """Check a pool's plan against the pool.

    Raises:
        InputError: it asks for more replicas than there are, or goes with something that it cannot go with.
    """
    plan: Any = pool.plan
    if plan is None:
        return
    provider(f"{key}.plan", plan, ["begin"], "a Plan such as StepPlan([(0, 2), (3600, 4)]), or None")
    if plan.most > pool.replicas or plan.most == 0:
        raise InputError(f"{key}.plan", plan.most, f"numbers from 0 to replicas ({pool.replicas}), not all 0")
    for name, other in (("dp", pool.dp > 1), ("prefill_replicas", pool.prefill_replicas), ("outages", pool.outages)):
        if other:
            raise InputError(f"{key}.{name}", getattr(pool, name), "none with a plan, which takes replicas one by one")

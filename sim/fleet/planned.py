"""A pool whose replicas come and go by a plan: one that is scheduled no longer takes no requests, and ends its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from heapq import heapify
from typing import Any

from simpy.events import URGENT

from sim.fleet.balancers import BALANCERS, ORDERED
from sim.fleet.plan import Schedule
from sim.fleet.replicas import ReplicaPool
from sim.request import Request
from sim.serving.sequence import Sequence
from sim.serving.timer import Timer

OFF = 1 << 40  #: added to the load of a replica that takes no requests, so that no balancer prefers it

Span = tuple[float, float]


class Switch(Timer):
    """The next change of a plan; no reason by itself for a run to go on."""


class PlannedPool(ReplicaPool):
    """A `ReplicaPool` by a plan (`sim.fleet.plan`): the first so many replicas are scheduled.

    A replica that is scheduled is there at once, boots, and then takes requests; where no other one does, they may wait
    for it. When it is scheduled no longer it takes no more, and is there until it has ended what it has. `replicas` is
    the number that take requests, at least 1; while none does the pool is out of service (`up`).

    Args:
        as of `ReplicaPool`; its specification has a plan.

    Attributes:
        duty: whether each replica takes requests.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        count = len(self.engines)
        self._several, self._ordered = True, self.balancer in ORDERED
        self._pick = _on_duty(self.balancer)
        self.duty, self._scheduled = [False] * count, [False] * count
        self.loads = [OFF] * count
        self.order = [(OFF, i) for i in range(count)]
        heapify(self.order)
        self._there: list[list[list[float]]] = [[] for _ in range(count)]  # [start, end], infinity while it is there
        self._boots: list[tuple[int, float]] = []  # replica, and when it began to boot
        self._next_s = 0.0
        plan: Any = self.spec.plan
        self._schedule: Schedule = plan.begin(lambda: self.outstanding)
        self.up, self.replicas = False, 1
        self.may_fail = bool(plan.least == 0)

    def schedule_outages(self) -> None:
        """Let the plan begin."""
        self._change(0.0)
        self._wait()

    def _wait(self) -> None:
        if self._next_s < math.inf:
            self.env.schedule(Switch(self.env, self._switch), URGENT, self._next_s - self.env.now)

    def _switch(self, _: Timer) -> None:
        self._change(self._next_s)
        # a plan of every day has no end: the run's is when nothing but plans is left
        if any(not isinstance(entry[3], Switch) for entry in self.env._queue):
            self._wait()

    def _change(self, t: float, running: bool = True) -> None:
        """Do what the plan says at `t`; `running` is False where the run is over, and only the books go on."""
        wanted = self._schedule.at(t)
        self._next_s = self._schedule.next_change(t)
        for replica, scheduled in enumerate(self._scheduled):
            if replica < wanted and not scheduled:
                self._begin(replica, t, running)
            elif replica >= wanted and scheduled:
                self._end(replica, t)

    def _begin(self, replica: int, t: float, running: bool) -> None:
        self._scheduled[replica] = True
        there, boot_s = self._there[replica], self.spec.boot_s
        if there and there[-1][1] == math.inf:  # it has not ended what it had
            self._take(replica, True)
            return
        there.append([t, math.inf])
        self.engines[replica].ready_s = t + boot_s
        if boot_s:
            self._boots.append((replica, t))
        if not running or not boot_s or not any(self.duty):
            self._take(replica, True)
        else:
            self.env.schedule(Timer(self.env, partial(self._booted, replica, t)), URGENT, t + boot_s - self.env.now)

    def _booted(self, replica: int, t: float, _: Timer) -> None:
        if self._scheduled[replica] and not self.duty[replica] and self._there[replica][-1][0] == t:
            self._take(replica, True)

    def _end(self, replica: int, t: float) -> None:
        self._scheduled[replica] = False
        if self.duty[replica]:
            self._take(replica, False)
        if self.loads[replica] == OFF:
            self._there[replica][-1][1] = t

    def _take(self, replica: int, on: bool) -> None:
        """Let a replica take requests, or no more."""
        self.duty[replica] = on
        self._change_load(replica, -OFF if on else OFF)
        count = sum(self.duty)
        self.replicas, self.up = max(count, 1), count > 0
        vars(self).pop("estimator", None)  # which has counted them

    def _balance(self, request: Request) -> int:
        leg = request.leg
        if leg is not None and leg.replica >= 0 and self.loads[leg.replica] == OFF:
            leg.replica = -1  # what a policy goes back to is there no more
        return super()._balance(request)

    def _on_done(self, replica: int) -> Callable[[Sequence], None]:
        done = super()._on_done(replica)

        def finished(seq: Sequence) -> None:
            done(seq)
            if self.loads[replica] == OFF and not self._scheduled[replica]:
                self._there[replica][-1][1] = min(self._there[replica][-1][1], float(self.env.now))

        return finished

    @property
    def kv_use(self) -> float:
        """As of any pool; replicas that end what they have count, so at most 1."""
        return min(1.0, super().kv_use)

    def provisioned(self, end_s: float) -> tuple[list[Span], list[Span]]:
        """When replicas were there, and when they booted, until `end_s`: (start, end) of each time [s]."""
        while self._next_s < end_s:
            self._change(self._next_s, running=False)
        spans = [(start, min(end, end_s)) for there in self._there for start, end in there if start < end_s]
        ends = {(i, start): end for i, there in enumerate(self._there) for start, end in there}
        boots = [(t, min(t + self.spec.boot_s, ends[i, t], end_s)) for i, t in self._boots if t < end_s]
        return spans, boots


def _on_duty(name: str) -> Callable[[Any, Request], int]:
    """A balancer that names replicas on duty alone, if there is one."""

    def those(pool: Any) -> list[int]:
        return [i for i, on in enumerate(pool.duty) if on] or list(range(len(pool.duty)))

    def round_robin(pool: Any, request: Request) -> int:
        on = those(pool)
        pool.turn = next((i for i in on if i > pool.turn), on[0])
        return int(pool.turn)

    def uniform(pool: Any, request: Request) -> int:
        on = those(pool)
        return on[int(pool.rng.random() * len(on))]

    def power_of_two(pool: Any, request: Request) -> int:
        on = those(pool)
        first, second = (on[int(pool.rng.random() * len(on))] for _ in range(2))
        return second if pool.loads[second] < pool.loads[first] else first

    own = {"round_robin": round_robin, "random": uniform, "power_of_two": power_of_two}
    return own.get(name, BALANCERS[name])

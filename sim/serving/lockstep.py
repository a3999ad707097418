"""A data-parallel group in lock-step: ranks with a scheduler, queue and KV cache each, that share a model's experts.

Every layer with experts exchanges tokens between all ranks, so in each step all of them wait for the slowest, and a
rank without work runs a *dummy step*, of one token that nobody reads, for as long as any other has some. With every
batch fixed, each rank's step is affine (`sim.serving.spans`), and so is that of the group for as long as the same rank
is the slowest:

    t = max over ranks of (own cost + common cost)              common: experts and all-to-all, by the group's tokens

A span of the group ends where that of any rank does, or where another rank becomes the slowest. What waiting and dummy
steps take is part of what the group's tokens take together: per step, all but attention goes to them in equal parts,
whichever rank they are on. Source: vLLM, data parallel deployment; its ranks go on for up to 32 dummy steps when the
last request is done, these do not.
"""

from __future__ import annotations

import math
from typing import Any

from simpy import Environment
from simpy.events import NORMAL

from sim.hardware.expert_group import GroupTiming
from sim.serving.costs import capped
from sim.serving.engine import Engine
from sim.serving.progression import steps_within
from sim.serving.queues import TOLERANCE_S
from sim.serving.spans import Span
from sim.serving.timer import Timer


class Rank(Engine):
    """One rank of a group: an engine that its group wakes.

    Attributes:
        group: the ranks that it goes in step with.
        dummy: whether the span under way is one of dummy steps.
        dummy_s: time in dummy steps [s]; waited_s: time in other steps in which it waited for a slower rank [s].
    """

    __slots__ = ("_lag", "dummy", "dummy_s", "group", "waited_s")

    def __init__(self, group: LockStep, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.group = group
        group.join(self)
        self._rest()
        self.dummy = False
        self.dummy_s = self.waited_s = 0.0
        self._lag = (0.0, 0.0)  # behind the slowest rank in the span's first step, and its growth [s]

    def _rest(self) -> None:
        """Leave nothing scheduled, as at a boundary without work: the others may wake this rank."""
        self.chunks, self.charges = [], []
        self.left, self.held, self.preempted, self._open = self.budget, 0, False, True
        self.ending_seats = self.ending_blocks = 0

    def plan(self, t: float) -> float:
        """Plan the next step of the whole group; see `Spans.plan`."""
        return self.group.plan(t)

    def fail(self, now: float) -> None:
        """Lose everything at `now`, and so does the whole group; see `Engine.fail`."""
        self.group.fail(now)

    def fail_alone(self, now: float) -> None:
        """Lose what this rank has."""
        super().fail(now)
        self._rest()

    def plan_alone(self, t: float) -> int:
        """Plan as if there were no other rank. Returns the tokens of a step, 0 if it is a dummy."""
        if self.n or self.chunks:
            self.dummy = False
            super().plan(t)
            assert self._span is not None
            return self._span[10]
        self.dummy = True
        if self.async_scheduling:
            self.visible_s = t
        cost = self._decode_costs.get(1) or self.shared.cost(1, 0, 0)
        step, head = cost[0] + self.common, self.timing.headroom_w
        if step.imag > head * step.real:
            step = capped(step, head)
        self._span = (t, step.real, 0.0, step, 0j, step, 0j, 0j, 0j, 0j, 0)
        return 0

    def tokens(self) -> int:
        """Tokens that the coming step computes, those of padding and dummies included."""
        own = self.n * self.queries
        for _, chunk in self.chunks:
            own += chunk
        return self.shared.padded(own or 1)

    def keep_step(self, span: Span, a: float, b: float, wait_w: float) -> Span:
        """The span with the group's durations `a + b i`: what it waits for is time, and energy at `wait_w`."""
        t, own_a, own_b, first, more, equal, growth, kappa, rho, rho_w, tokens = span
        lag, widening = self._lag = (a - own_a, b - own_b)
        wait, widens = complex(lag, wait_w * lag), complex(widening, wait_w * widening)
        return t, a, b, first + wait, more + widens, equal + wait, growth + widens, kappa, rho, rho_w, tokens

    def commit(self, end: float) -> None:
        """See `Spans.commit`."""
        span, k = self._span, self._k
        assert span is not None
        half = k * (k - 1) * 0.5
        if not self.dummy:
            self.waited_s += k * self._lag[0] + half * self._lag[1]
            super().commit(end)
            return
        t, a, b, first, more = span[:5]
        total = k * first + half * more
        self.busy += total
        self.dummy_s += total.real
        self.end_s = end
        if self.varying:
            self.busy_g += (self.active_w * total.real + total.imag) * self.now_intensity
            self.busy_gs += total.real * self.now_intensity
        row = (t, k, a, b, 0, 0, 0, 0, total.imag)
        self.rows.append(row if len(self.by_class) == 1 else row + tuple(self.by_class))

    def _cut(self, k: int) -> None:
        for rank in self.group.ranks:
            rank._k = k
        self.group.arm(self._end_of(k))

    def _arm(self, at: float) -> None:
        self.group.arm(at)


class LockStep:
    """The ranks of one group, and their common clock. Ranks join as they are made.

    Args:
        env: the SimPy environment.
        timing: what steps cost.
    """

    __slots__ = ("_env", "_priority", "_timer", "_timing", "_wake_at", "next_change", "ranks")

    def __init__(self, env: Environment, timing: GroupTiming) -> None:
        self._env, self._timing = env, timing
        self._timer = Timer(env, self._on_timer)
        self._priority: Any = NORMAL
        self._wake_at = self.next_change = math.inf
        self.ranks: list[Rank] = []

    def join(self, rank: Rank) -> None:
        """Take a rank in; its group minds the changes of the intensity for it."""
        self.ranks.append(rank)
        self._priority = rank._priority
        self.next_change, rank.next_change = rank.next_change, math.inf

    def arm(self, at: float) -> None:
        """Wake at time `at` instead of whenever was due."""
        self._wake_at = at
        self._env.schedule(self._timer, self._priority, max(0.0, at - self._env.now))

    def _on_timer(self, event: Timer) -> None:
        event.callbacks = event.wake
        at, ranks = self._wake_at, self.ranks
        if self._env.now < at - TOLERANCE_S:
            return  # superseded by a later wake-up
        for rank in ranks:
            rank._planning = True
        if ranks[0]._span is not None:
            for rank in ranks:
                rank.commit(at)
        for rank in ranks:
            if rank.cancelled:
                rank._drop_cancelled(at)
        busy = [rank.schedule(at) for rank in ranks]
        if any(busy):
            self.arm(self.plan(at))
        else:
            for rank in ranks:
                rank._span = None
            self._wake_at = math.inf
        for rank in ranks:
            rank._planning = False

    def fail(self, now: float) -> None:
        """Lose everything at `now`: no rank can go on without the experts of the others."""
        self._wake_at = math.inf
        for rank in self.ranks:
            rank._planning = True  # whoever sends something new when told, sends it to a group that has failed
        for rank in self.ranks:
            rank.halt(now)
        for rank in self.ranks:
            rank.fail_alone(now)
            rank._planning = True
        for rank in self.ranks:
            rank._planning = False
            if rank.waiting:
                self.arm(max(now, rank.ready_s))

    def plan(self, t: float) -> float:
        """Cost the scheduled step, which starts at `t`, and as many equal ones as follow it. Returns their end."""
        ranks = self.ranks
        for rank in ranks:
            self.next_change = min(self.next_change, rank.next_change)  # where it is to be read anew
            rank.next_change = math.inf
        tokens = [rank.tokens() for rank in ranks]
        common = self._timing.common(sum(tokens), max(tokens))
        work = 0  # tokens that somebody waits for
        for rank in ranks:
            rank.common = common
            work += rank.plan_alone(t)
        a, b, k = self._slowest()
        end = t + k * a + b * (k * (k - 1) * 0.5)
        if end > self.next_change:
            k = self._meet_signal(t, a, b, k)
        for rank in ranks:
            if rank._quantum_s and rank.waiting and k > 1:
                k = min(k, max(1, steps_within(rank.turn_s - t, a, b)))
        self._share(a, b, work)
        for rank in ranks:
            rank._k = k
        return t + k * a + b * (k * (k - 1) * 0.5)

    def _slowest(self) -> tuple[float, float, int]:
        """First duration [s] and growth [s] of the slowest rank's steps, and for how many steps it is that."""
        spans: list[Any] = [rank._span for rank in self.ranks]
        a, b = max((span[1], span[2]) for span in spans)
        k = min(rank._k for rank in self.ranks if not rank.dummy)
        for _, own_a, own_b, *_ in spans:
            if own_b > b and own_a + own_b * (k - 1) > a + b * (k - 1):
                k = min(k, int((a - own_a) / (own_b - b)) + 1)
        return a, b, k

    def _share(self, a: float, b: float, work: int) -> None:
        """Let all ranks take as long as the slowest, and the group's tokens have equal parts of all but attention."""
        equal = growth = 0j
        spans = []
        for rank in self.ranks:
            span: Any = rank._span
            span = rank.keep_step(span, a, b, self._timing.wait_w)
            spans.append(span)
            equal += span[5]
            growth += span[6]
        for rank, span in zip(self.ranks, spans):
            part = span[10] / work
            rank._span = (*span[:5], equal * part, growth * part, *span[7:])

    def _meet_signal(self, t: float, a: float, b: float, k: int) -> int:
        """See `Spans._meet_signal`: one rank cuts the span, and the others follow."""
        first, *others = self.ranks
        first.next_change = self.next_change
        k = first._meet_signal(t, a, b, k)
        self.next_change, first.next_change = first.next_change, math.inf
        for rank in others:
            rank.settle_all()
            rank.now_intensity = first.now_intensity
        return k

"""The slow and obvious data-parallel group: reference engines that take every step together. For tests only."""

from __future__ import annotations

from typing import Any

from sim.hardware.expert_group import GroupTiming
from tests.oracles.reference_engine import Job, Outcome, ReferenceEngine, Rules


class ReferenceGroup:
    """Ranks that each serve jobs of their own under the rules of the fast engine, in lock-step."""

    def __init__(
        self,
        ranks: int,
        timing: GroupTiming,
        *shape: Any,
        rules: Rules | None = None,
        failures: tuple[float, ...] = (),
    ) -> None:
        self.timing, self.failures = timing, sorted(failures)
        self.ranks = [ReferenceEngine(timing, *shape, rules) for _ in range(ranks)]
        self.dummy_s = [0.0] * ranks
        self.waited_s = [0.0] * ranks

    def serve(self, jobs: list[list[Job]]) -> list[Outcome]:
        """Serve the jobs of each rank."""
        for rank, own in zip(self.ranks, jobs):
            rank.coming = sorted(own, key=lambda job: (job.arrival_s, job.id))
            for job in own:
                job.length, job.computed = job.prompt, job.cached
        outcomes = [Outcome(own, 0.0, 0.0, 0.0, [], 0) for own in jobs]
        t = 0.0
        while any(rank.coming for rank in self.ranks) or self.has_work():
            if not self.has_work():
                t = max(t, min(rank.coming[0].arrival_s for rank in self.ranks if rank.coming))
            for rank in self.ranks:
                rank.let_in(t)
            while self.failures and self.failures[0] <= t:  # while there was nothing to do
                self.failures.pop(0)
                for rank in self.ranks:
                    rank.forget()
            for rank in self.ranks:
                rank.let_go(t)
            if not self.has_work():
                continue
            plans = [rank.plan(t) for rank in self.ranks]
            assert any(plans), "a group with work must have a step"
            t = self.execute(t, plans, outcomes)
        return outcomes

    def has_work(self) -> bool:
        return any(rank.arrived or rank.waiting or rank.running for rank in self.ranks)

    def execute(self, t: float, plans: list[list[tuple[Job, int]]], outcomes: list[Outcome]) -> float:
        """Let all ranks take as long as the slowest; all but attention goes to the tokens of the group alike."""
        timing = self.timing
        counts = [sum(tokens for _, tokens in plan) or 1 for plan in plans]  # a dummy has one token
        common = timing.common(sum(counts), max(counts))
        steps = [rank.price(plan, common) if plan else None for rank, plan in zip(self.ranks, plans)]
        dummy = timing.step(1, 0, 0)
        taken = []
        for rank, step in zip(self.ranks, steps):
            if step is None:
                seconds, joules = dummy.fixed_s + common.real, dummy.fixed_j + common.imag
                seconds = max(seconds, joules / timing.headroom_w)
            else:
                seconds = step.seconds + sum(extra for _, extra, _, _ in rank.extras)
                joules = step.joules + sum(extra for _, _, extra, _ in rank.extras)
            taken.append((seconds, joules))
        slowest = max(seconds for seconds, _ in taken)
        whole = [joules + timing.wait_w * (slowest - seconds) for seconds, joules in taken]
        if self.failures and self.failures[0] < t + slowest:
            end = self.failures.pop(0)
            for rank, joules, out in zip(self.ranks, whole, outcomes):
                rank.lose(t, end, slowest, joules, out)
            return end
        part_s, part_j = self.parts(steps, slowest, whole)
        for at, (rank, step) in enumerate(zip(self.ranks, steps)):
            out = outcomes[at]
            if step is not None:
                self.waited_s[at] += slowest - taken[at][0]
                rank.deliver(t, step, slowest, whole[at], part_s, part_j, out)
                continue
            self.dummy_s[at] += slowest
            out.steps.append((t, slowest, 0))
            out.busy_s += slowest
            out.dyn_j += whole[at]
            out.busy_g += (rank.active_w * slowest + whole[at]) * rank.intensity.integral(t, t + slowest) / slowest
        return t + slowest

    def parts(self, steps: list[Any], seconds: float, joules: list[float]) -> tuple[float, float]:
        """Time and energy of one token: of all ranks together, less what goes by context and what goes to one alone."""
        timing = self.timing
        rest_s, rest_j, tokens = seconds * len(self.ranks), sum(joules), 0
        for rank, step in zip(self.ranks, steps):
            if step is None:
                continue
            tokens += step.tokens
            rest_s -= step.kappa * sum(step.contexts) + step.rho * sum(step.pairs) + step.rho_w * sum(step.pairs_w)
            rest_j -= (
                step.eps * sum(step.contexts) + timing.rho_j * sum(step.pairs) + timing.rho_w_j * sum(step.pairs_w)
            )
            rest_s -= sum(extra for _, extra, _, _ in rank.extras)
            rest_j -= sum(extra for _, _, extra, _ in rank.extras)
        return rest_s / tokens, rest_j / tokens

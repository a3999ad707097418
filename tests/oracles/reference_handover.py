"""The slow and obvious disaggregated pool: reference engines step by step, and one event after the other between them.

Some engines compute prompts, the others decode; each looks at every step, and nobody skips any.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from tests.oracles.reference_engine import JOIN_S, Job, Outcome, ReferenceEngine, ceil_div


@dataclass
class Copy:
    """The KV of a prompt on its way."""

    job: Job
    origin: int
    target: int
    end_s: float


class ReferenceHandover:
    """Serves jobs on engines of which the first `prefill` compute prompts, and the others go on.

    Args:
        latency_s, s_per_token: what the copy of a prompt takes; a prefill engine sends one after the other.
    """

    def __init__(self, engines: list[ReferenceEngine], prefill: int, latency_s: float, s_per_token: float) -> None:
        self.engines, self.prefill = engines, prefill
        self.latency_s, self.s_per_token = latency_s, s_per_token
        self.block = engines[0].block
        self.outcomes = [Outcome([], 0.0, 0.0, 0.0, [], 0) for _ in engines]
        self.steps: list[tuple[float, float, list] | None] = [None] * len(engines)  # start, end and plan of each one's
        self.assigned: list[list[Job]] = [[] for _ in engines]  # prompts to compute, or jobs to decode, copies included
        self.queues: list[deque[tuple[Job, int]]] = [deque() for _ in engines]  # computed, with where; by target
        self.copies: list[Copy] = []
        self.place: dict[int, int] = {}  # where each job ended

    def serve(self, jobs: list[Job]) -> list[Outcome]:
        coming = sorted(jobs, key=lambda job: (job.arrival_s, job.id))
        for job in coming:
            job.length, job.computed = job.prompt, job.cached
        while True:
            ends = [step[1] for step in self.steps if step is not None] + [copy.end_s for copy in self.copies]
            now = min([*ends, *(job.arrival_s for job in coming[:1])], default=math.inf)
            if now == math.inf:
                break
            poked, targets = set(), []
            for index, step in enumerate(self.steps):
                if step is not None and step[1] <= now:
                    targets += self.end_step(index, step)
                    poked.add(index)
            while coming and coming[0].arrival_s <= now + JOIN_S:
                poked.add(self.arrive(coming.pop(0)))
            for copy in [copy for copy in self.copies if copy.end_s <= now]:
                poked |= {copy.origin, copy.target}
                self.hand_over(copy)
                targets.append(copy.target)
            for index in sorted(poked):
                self.plan(index, now)
            for target in targets:
                self.begin_copies(target, now)
        return self.outcomes

    def arrive(self, job: Job) -> int:
        """To the prefill engine with the fewest tokens to compute."""
        index = min(range(self.prefill), key=lambda i: sum(each.prompt for each in self.assigned[i]))
        self.assigned[index].append(job)
        job.target = 1
        self.engines[index].arrived.append(job)
        return index

    def plan(self, index: int, now: float) -> None:
        engine = self.engines[index]
        if self.steps[index] is None and (engine.running or engine.waiting or engine.arrived):
            plan = engine.plan(now)
            if plan:
                self.steps[index] = (now, now + engine.measure(plan).seconds, plan)

    def end_step(self, index: int, step: tuple[float, float, list]) -> list[int]:
        """A step is over. Returns the decode engines that may now have copies to begin."""
        engine, targets = self.engines[index], []
        self.steps[index] = None
        engine.execute(step[0], step[2], self.outcomes[index])
        for job in engine.finished:
            self.assigned[index].remove(job)
            self.place[job.id] = index
            if len(job.tokens) == job.output:
                targets += [index] * (index >= self.prefill)
                continue
            target = min(range(self.prefill, len(self.engines)), key=lambda i: len(self.assigned[i]))
            self.assigned[target].append(job)
            self.queues[target].append((job, index))
            targets.append(target)
        engine.finished = []
        return targets

    def begin_copies(self, target: int, now: float) -> None:
        """In order, as long as there is room beside what the decode engine needs for those it has."""
        queue, engine = self.queues[target], self.engines[target]
        while queue:
            job, origin = queue[0]
            wanted = sum(ceil_div(other.length, self.block) for other in [*engine.waiting, *engine.arrived])
            if ceil_div(job.prompt + 1, self.block) > engine.free - wanted:
                return
            queue.popleft()
            engine.pinned += ceil_div(job.prompt + 1, self.block)
            start = max([now, *(copy.end_s for copy in self.copies if copy.origin == origin)])
            self.copies.append(Copy(job, origin, target, start + self.latency_s + job.prompt * self.s_per_token))

    def hand_over(self, copy: Copy) -> None:
        self.copies.remove(copy)
        job = copy.job
        self.engines[copy.origin].gone(job)
        self.engines[copy.target].pinned -= ceil_div(job.prompt + 1, self.block)
        job.target, job.length, job.computed = job.output, job.prompt + 1, job.prompt
        self.engines[copy.target].arrived.append(job)

"""The slow and obvious engine: one loop a step, one loop a sequence, every block and token kept. For tests only.

It knows nothing of spans, residues, heaps or running totals. Where the fast engine has a formula, this one counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.accounting.signal import Signal
from sim.hardware.timing import StepTiming

JOIN_S = 1e-9  # an arrival this close after a boundary still joins the step that starts there [s]


@dataclass
class Job:
    """A request and all that happened to it."""

    id: int
    arrival_s: float
    prompt: int
    output: int
    cached: int = 0
    hashes: tuple[int, ...] = ()
    units: list[int] = field(default_factory=list)  # prefix units it shares
    scheduled_s: float = -1.0
    tokens: list[float] = field(default_factory=list)  # time of every token [s]
    computed: int = 0  # tokens with KV
    length: int = 0  # tokens to prefill
    blocks: int = 0
    preemptions: int = 0
    prefill: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # seconds, joules, J g/kWh
    decode: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    waste: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    @property
    def prefilling(self) -> bool:
        return self.computed < self.length


@dataclass
class Outcome:
    jobs: list[Job]
    busy_s: float
    dyn_j: float
    busy_g: float
    steps: list[tuple[float, float, int]]  # start, duration, decoding sequences
    most_blocks: int


def ceil_div(a: int, b: int) -> int:
    return (a + b - 1) // b


class ReferenceEngine:
    """Serves jobs in order of arrival under the rules of the fast engine."""

    def __init__(
        self,
        timing: StepTiming,
        blocks: int,
        block_size: int,
        max_seqs: int,
        budget: int,
        intensity: Signal,
        host_w: float = 0.0,
        async_scheduling: bool = False,
        unit: int = 0,
    ) -> None:
        self.unit = unit  # tokens a prefix unit, 0 without a prefix cache
        self.idle: list[int] = []  # resident prefix units that nobody uses, longest idle first
        self.async_scheduling = async_scheduling
        self.step_started = 0.0
        self.timing, self.total, self.block = timing, blocks, block_size
        self.max_seqs, self.budget, self.intensity = max_seqs, budget, intensity
        self.active_w = timing.static_w + host_w
        self.waiting: list[Job] = []
        self.running: list[Job] = []

    @property
    def free(self) -> int:
        """Blocks that nobody uses; what a prefix cache keeps in them goes when they are needed."""
        private = sum(job.blocks - len(job.units) * self.unit // self.block for job in self.running)
        return self.total - private - len(self.used_units()) * self.unit // self.block

    def used_units(self) -> set[int]:
        return {unit for job in self.running for unit in job.units}

    def evict(self) -> None:
        while len(self.idle) * self.unit // self.block > self.free:
            self.idle.pop(0)

    def release(self, job: Job) -> None:
        """A job that is no longer running gives up its prefix units, the deepest first."""
        used = self.used_units()
        self.idle += [unit for unit in reversed(job.units) if unit not in used]
        job.units = []

    def resident_prefix(self, job: Job) -> list[int]:
        found: list[int] = []
        if self.unit:
            resident = self.used_units() | set(self.idle)
            for unit in job.hashes[: (job.prompt - 1) // self.unit]:
                if unit not in resident:
                    break
                found.append(unit)
        return found

    def serve(self, jobs: list[Job]) -> Outcome:
        coming = sorted(jobs, key=lambda job: (job.arrival_s, job.id))
        for job in coming:
            job.length, job.computed = job.prompt, job.cached
        out = Outcome(jobs, 0.0, 0.0, 0.0, [], 0)
        t = 0.0
        while coming or self.waiting or self.running:
            if not self.waiting and not self.running:
                t = max(t, coming[0].arrival_s)
            while coming and coming[0].arrival_s <= t + JOIN_S:
                self.waiting.append(coming.pop(0))
            # with asynchronous scheduling a step is planned when the one before starts
            seen = self.step_started if self.async_scheduling and self.running else t
            plan = self.schedule(t, seen)
            self.step_started = t
            assert plan, "an engine with work must have a step"
            t = self.execute(t, plan, out)
        return out

    def schedule(self, t: float, seen: float) -> list[tuple[Job, int]]:
        """The tokens that each sequence processes in the step that starts at `t`; arrivals after `seen` wait."""
        plan: list[tuple[Job, int]] = []
        left, preempted, at = self.budget, False, 0
        while at < len(self.running) and left > 0:
            job = self.running[at]
            tokens = min(job.length - job.computed, left) if job.prefilling else 1
            need = ceil_div(job.computed + tokens, self.block) - job.blocks
            while need > self.free and self.running:
                victim = self.running.pop()
                self.preempt(victim)
                preempted = True
                if victim is job:
                    break
            if job not in self.running:
                break
            job.blocks += need
            self.evict()
            plan.append((job, tokens))
            left -= tokens
            at += 1
        while self.waiting and not preempted and left > 0 and len(self.running) < self.max_seqs:
            job = self.waiting[0]
            if job.arrival_s > seen + JOIN_S:
                break
            hits = self.resident_prefix(job)
            in_use = len(self.used_units() & set(hits)) * self.unit // self.block
            if ceil_div(job.length, self.block) - in_use > self.free:
                break
            self.waiting.pop(0)
            self.running.append(job)
            job.units = hits
            job.blocks = len(hits) * self.unit // self.block
            self.idle = [unit for unit in self.idle if unit not in hits]
            job.computed = max(job.cached, len(hits) * self.unit)
            if job.scheduled_s < 0:
                job.scheduled_s = t
            tokens = min(job.length - job.computed, left)
            job.blocks = ceil_div(job.computed + tokens, self.block)
            self.evict()
            plan.append((job, tokens))
            left -= tokens
        return plan

    def preempt(self, job: Job) -> None:
        job.waste = [w + p for w, p in zip(job.waste, job.prefill)]
        job.prefill = [0.0, 0.0, 0.0]
        self.release(job)
        job.blocks, job.computed = 0, job.cached
        job.length = job.prompt + len(job.tokens)
        job.preemptions += 1
        self.waiting.insert(0, job)

    def execute(self, t: float, plan: list[tuple[Job, int]], out: Outcome) -> float:
        timing, window = self.timing, self.timing.window
        decoding = [job for job, _ in plan if not job.prefilling]
        chunks = [(job, tokens) for job, tokens in plan if job.prefilling]
        n, total = len(decoding), sum(tokens for _, tokens in plan)
        contexts = [job.computed + 1 for job in decoding]
        pairs = [sum(job.computed + i for i in range(1, tokens + 1)) for job, tokens in chunks]
        pairs_w = [
            sum(min(job.computed + i, window) for i in range(1, tokens + 1)) if window else 0 for job, tokens in chunks
        ]
        cost = timing.step(n, total - n, len(chunks))
        skew = n * max(contexts) - sum(contexts) if contexts else 0
        windowed = sum(min(c, window) for c in contexts) if window else 0
        joules_fixed = cost.fixed_j + cost.eps_w * windowed
        joules = joules_fixed + cost.eps * sum(contexts) + timing.rho_j * sum(pairs) + timing.rho_w_j * sum(pairs_w)
        tau, rho, rho_w = cost.tau, timing.rho, timing.rho_w
        kappa = tau * (1 - cost.alpha)
        rest = cost.fixed_s + tau * cost.alpha * (skew + sum(contexts)) + cost.tau_w * windowed
        seconds = rest + kappa * sum(contexts) + rho * sum(pairs) + rho_w * sum(pairs_w)
        if joules > seconds * timing.headroom_w:  # the chip slows down to its power limit
            head = timing.headroom_w
            rest, kappa = joules_fixed / head, cost.eps / head
            rho, rho_w, seconds = timing.rho_j / head, timing.rho_w_j / head, joules / head
        mean = self.intensity.integral(t, t + seconds) / seconds
        out.steps.append((t, seconds, n))
        out.busy_s += seconds
        out.dyn_j += joules
        out.busy_g += (self.active_w * seconds + joules) * mean
        out.most_blocks = max(out.most_blocks, self.total - self.free)
        assert out.most_blocks <= self.total
        end = t + seconds
        for job, context in zip(decoding, contexts):
            self.book(job.decode, rest / total + kappa * context, joules_fixed / total + cost.eps * context, mean)
            job.computed += 1
            job.tokens.append(end)
        for (job, tokens), own, own_w in zip(chunks, pairs, pairs_w):
            self.book(
                job.prefill,
                tokens * rest / total + rho * own + rho_w * own_w,
                tokens * joules_fixed / total + timing.rho_j * own + timing.rho_w_j * own_w,
                mean,
            )
            job.computed += tokens
        for job in sorted(decoding, key=lambda job: job.id):
            self.finish(job)
        for job, _ in chunks:
            if not job.prefilling:
                job.tokens.append(end)
                self.register(job)
                self.finish(job)
        return end

    def register(self, job: Job) -> None:
        """A computed prompt's units can be shared from now on, but for those that others computed meanwhile."""
        if self.unit:
            resident = self.used_units() | set(self.idle)
            full = job.hashes[len(job.units) : job.prompt // self.unit]
            job.units = job.units + [unit for unit in full if unit not in resident]

    def finish(self, job: Job) -> None:
        if len(job.tokens) == job.output:
            self.running.remove(job)
            self.release(job)
            job.blocks = 0

    def book(self, account: list[float], seconds: float, joules: float, intensity: float) -> None:
        account[0] += seconds
        account[1] += joules
        account[2] += (self.active_w * seconds + joules) * intensity

"""The slow and obvious engine: one loop a step, one loop a sequence, every block and token kept. For tests only.

It knows nothing of spans, residues, heaps or running totals. Where the fast engine has a formula, this one counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from sim.accounting.signal import Signal
from sim.hardware.timing import StepTiming
from sim.request import NO_TRAITS, Traits
from sim.results import STATUSES

FAILED, CANCELLED = STATUSES.index("failed"), STATUSES.index("cancelled")
JOIN_S = 1e-9  # an arrival this close after a boundary still joins the step that starts there [s]


@dataclass
class Rules:
    """Where a replica deviates from plain vLLM V1; see `sim.serving.options.Options`."""

    order: str = "fcfs"  # or priority, sjf, edf, vtc
    async_scheduling: bool = False
    unit: int = 0  # tokens a prefix unit, 0 without a prefix cache
    host_units: int = 0  # units that the host keeps
    offload_s: float = 0.0
    whole_prompts: bool = False
    closed_batches: bool = False
    swap_tokens: int = 0
    swap_s: float = 0.0
    adapter_slots: int = 0
    adapter_load_s: float = 0.0
    quantum_s: float = 0.0  # andes
    most_preemptions: int = 0
    expected_s: float = 0.0
    speed: float = 1.0
    image_s: float = 0.0
    image_j: float = 0.0
    drafts: int = 0
    pace: int = 1  # a decode step yields pace / parts tokens
    parts: int = 1
    full_groups: int = 1  # groups of layers that keep every block
    windowed_groups: int = 0  # those that give a block back once it is `window` tokens behind
    window: int = 0
    windowed_block: int = 0  # tokens a block of the latter


@dataclass
class Job:
    """A request and all that happened to it."""

    id: int
    arrival_s: float
    prompt: int
    output: int
    cached: int = 0
    hashes: tuple[int, ...] = ()
    traits: Traits = NO_TRAITS
    cancel_s: float = math.inf  # when its client loses interest [s]
    status: int = 0  # index into STATUSES
    swapped: int = 0  # blocks that the host keeps
    units: list[int] = field(default_factory=list)  # prefix units it shares
    scheduled_s: float = -1.0
    tokens: list[float] = field(default_factory=list)  # time of every token [s]
    computed: int = 0  # prompt tokens (and after a preemption others) with KV
    rounds: int = 0  # decode steps since then
    before: int = 0  # tokens it had by then
    length: int = 0  # tokens to prefill
    blocks: int = 0
    tables: dict[int, set[int]] = field(default_factory=dict)  # with windowed groups: which of its blocks each has
    preemptions: int = 0
    prefill: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # seconds, joules, J g/kWh
    decode: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    waste: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    def __post_init__(self) -> None:
        self.target = self.output  # tokens to emit here; another engine may go on

    @property
    def prefilling(self) -> bool:
        return self.computed < self.length


@dataclass
class Step:
    """One step, and what it takes."""

    decoding: list[Job]
    chunks: list[tuple[Job, int]]
    contexts: list[float]
    pairs: list[int]  # (query, context) pairs of each chunk
    pairs_w: list[int]  # the same up to the window
    tokens: int
    seconds: float
    joules: float
    rest: float  # what goes to all tokens alike [s]
    rest_j: float
    kappa: float  # per token of context [s]
    eps: float  # [J]
    rho: float  # per pair [s]
    rho_w: float


@dataclass
class Outcome:
    jobs: list[Job]
    busy_s: float
    dyn_j: float
    busy_g: float
    steps: list[tuple[float, float, int]]  # start, duration, decoding sequences
    most_blocks: int
    lost_s: float = 0.0  # of steps that a failure cut short
    lost_j: float = 0.0


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
        rules: Rules | None = None,
        failures: tuple[float, ...] = (),
    ) -> None:
        self.failures = sorted(failures)
        self.rules = rules or Rules()
        self.unit = self.rules.unit
        self.idle: list[int] = []  # resident prefix units that nobody uses, longest idle first
        self.host: list[int] = []  # units in host memory, longest unused first
        self.turn_s = 0.0  # andes: when to decide next
        self.ranks: dict[int, int] = {}  # andes: the order of those that waited at the last decision
        self.step_started = 0.0
        self.timing, self.total, self.block = timing, blocks, block_size
        self.max_seqs, self.budget, self.intensity = max_seqs, budget, intensity
        self.active_w = timing.static_w + host_w
        self.arrived: list[Job] = []  # the scheduler has not looked at them yet
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self.host_blocks = self.rules.swap_tokens // block_size
        self.adapters: list[int] = []  # loaded, the longest unused first
        self.served: dict[int, float] = {}  # virtual token counters
        self.last_tenant = -1
        self.extras: list[tuple[Job, float, float, bool]] = []  # job, seconds, joules, whether wasted
        # seats and blocks of those that ended in the last step, where the coming one was scheduled before they had
        self.ending_seats = self.ending_blocks = 0
        self.pinned = 0  # blocks set aside for KV on its way from another engine
        self.leaving: list[Job] = []  # those that another engine goes on with, until their KV is there
        self.finished: list[Job] = []  # in the order in which they ended

    @property
    def free(self) -> int:
        """Blocks that nobody uses; what a prefix cache keeps in them goes when they are needed."""
        private = sum(job.blocks - len(job.units) * self.unit // self.block for job in self.running + self.leaving)
        return self.total - self.pinned - private - len(self.used_units()) * self.unit // self.block

    def used_units(self) -> set[int]:
        return {unit for job in self.running + self.leaving for unit in job.units}

    def evict(self) -> None:
        while len(self.idle) * self.unit // self.block > self.free:
            unit = self.idle.pop(0)
            if self.rules.host_units:
                self.host = [*(other for other in self.host if other != unit), unit][-self.rules.host_units :]

    def release(self, job: Job) -> None:
        """A job that is no longer running gives up its prefix units, the deepest first."""
        used = self.used_units()
        self.idle += [unit for unit in reversed(job.units) if unit not in used]
        job.units = []

    def skipped(self, computed: int) -> int:
        """Leading blocks that a windowed group needs no more once so many tokens are computed."""
        window, block = self.rules.window, self.rules.windowed_block
        return sum(1 for end in range(block, computed + 1, block) if end <= computed + 1 - window)

    def computed_tokens(self, job: Job) -> int:
        """Tokens with KV before the coming step."""
        return job.computed if job.prefilling else math.floor(self.context(job)) - 1

    def give_back(self) -> None:
        """Windowed groups free what has fallen out of the window, before anybody takes anything."""
        for job in self.running if self.rules.windowed_groups else []:
            gone = self.skipped(self.computed_tokens(job))
            for group in range(self.rules.full_groups, self.rules.full_groups + self.rules.windowed_groups):
                job.tables[group] = {block for block in job.tables[group] if block >= gone}
            job.blocks = sum(len(table) for table in job.tables.values())

    def tables(self, job: Job, reach: int) -> dict[int, set[int]]:
        """The blocks that each group has once there is room for `reach` tokens."""
        rules, gone = self.rules, self.skipped(self.computed_tokens(job))
        tables = {}
        for group in range(rules.full_groups + rules.windowed_groups):
            windowed = group >= rules.full_groups
            blocks = ceil_div(reach, rules.windowed_block if windowed else self.block)
            tables[group] = set(range(gone if windowed else 0, blocks)) | job.tables.get(group, set())
        return tables

    def blocks_for(self, job: Job, reach: int) -> int:
        """Blocks of a job in a step that needs room for `reach` tokens."""
        if not self.rules.windowed_groups:
            return ceil_div(reach, self.block)
        return sum(len(table) for table in self.tables(job, reach).values())

    def take(self, job: Job, reach: int) -> None:
        job.blocks = self.blocks_for(job, reach)
        if self.rules.windowed_groups:
            job.tables = self.tables(job, reach)

    def whole_prompt(self, job: Job) -> int:
        """Blocks that must be free before a job is admitted: for all of it, or where a window bounds what it will hold
        at a time, for the largest chunk and the window before it, which may begin within a block."""
        rules = self.rules
        if not rules.windowed_groups:
            return ceil_div(job.length, self.block)
        most = ceil_div(rules.window - 1 + self.budget, rules.windowed_block) + 1
        needed = ceil_div(job.length, rules.windowed_block) - self.skipped(job.computed)
        return rules.full_groups * ceil_div(job.length, self.block) + rules.windowed_groups * min(most, needed)

    def resident_prefix(self, job: Job) -> list[int]:
        found: list[int] = []
        if self.unit:
            resident = self.used_units() | set(self.idle)
            for unit in job.hashes[: (job.prompt - 1) // self.unit]:
                all_resident = all(other in resident for other in found)
                if not (unit in resident and all_resident) and unit not in self.host:
                    break
                found.append(unit)
        return found

    def serve(self, jobs: list[Job]) -> Outcome:
        coming = self.coming = sorted(jobs, key=lambda job: (job.arrival_s, job.id))
        for job in coming:
            job.length, job.computed = job.prompt, job.cached
        out = Outcome(jobs, 0.0, 0.0, 0.0, [], 0)
        t = 0.0
        while coming or self.arrived or self.waiting or self.running:
            if not self.arrived and not self.waiting and not self.running:
                t = max(t, coming[0].arrival_s)
            self.let_in(t)
            while self.failures and self.failures[0] <= t:  # while there was nothing to do
                self.failures.pop(0)
                self.forget()
            self.let_go(t)
            if not self.running and not self.waiting and not self.arrived:
                continue
            plan = self.plan(t)
            assert plan, "an engine with work must have a step"
            t = self.execute(t, plan, out)
        return out

    def plan(self, t: float) -> list[tuple[Job, int]]:
        """The step that starts at `t`, after the one before has ended."""
        # with asynchronous scheduling a step is planned when the one before starts
        seen = self.step_started if self.rules.async_scheduling and self.running else t
        if not self.running:
            self.ending_seats = self.ending_blocks = 0
        plan = self.schedule(t, seen)
        if not plan and self.ending_seats:
            self.ending_seats = self.ending_blocks = 0
            extras = self.extras
            plan = self.schedule(t, t)
            self.extras = extras + self.extras
        self.ending_seats = self.ending_blocks = 0
        self.step_started = t
        return plan

    def let_in(self, t: float) -> None:
        while self.coming and self.coming[0].arrival_s <= t + JOIN_S:
            self.arrived.append(self.coming.pop(0))

    def let_go(self, t: float) -> None:
        for job in sorted([*self.running, *self.waiting, *self.arrived], key=lambda job: job.cancel_s):
            if job.cancel_s <= t:
                self.drop(job, CANCELLED)

    def drop(self, job: Job, status: int) -> None:
        """A job ends before its last token."""
        job.status = status
        for jobs in (self.arrived, self.waiting):
            if job in jobs:
                jobs.remove(job)
        self.host_blocks += job.swapped
        self.ranks.pop(job.id, None)
        if job in self.running:
            if not job.prefilling:
                self.register(job, job.prompt + len(job.tokens) - 1)
            self.running.remove(job)
            self.part(job)
            self.release(job)
            job.blocks = 0

    def forget(self) -> None:
        """A failure: nothing is left in memory."""
        self.idle, self.host, self.adapters = [], [], []

    def enqueue(self, job: Job, at: int) -> None:
        """Put a job into the queue; a tenant that had nobody waiting is lifted to the least served that has."""
        tenant = job.traits.tenant
        others = {other.traits.tenant for other in self.waiting}
        if tenant not in others:
            least = min((self.served[each] for each in others), default=self.served.get(self.last_tenant, 0.0))
            self.served[tenant] = max(self.served.get(tenant, 0.0), least)
        self.waiting.insert(at, job)

    def rank(self, job: Job) -> tuple[float, float, int]:
        order = self.rules.order
        key = 0.0
        if order == "priority":
            key = job.traits.priority
        elif order == "sjf":
            key = job.prompt + job.output
        elif order == "edf":
            key = job.arrival_s + job.traits.deadline_s
        return key, job.arrival_s, job.id

    def next_job(self, seen: float) -> Job | None:
        for job in self.arrived:
            self.enqueue(job, len(self.waiting))
        self.arrived = []
        known = [job for job in self.waiting if job.arrival_s <= seen + JOIN_S]
        if self.rules.order == "fcfs":
            return self.waiting[0] if self.waiting[0].arrival_s <= seen + JOIN_S else None
        if not known:
            return None
        if self.rules.order == "vtc":
            heads: dict[int, Job] = {}
            for job in self.waiting:
                heads.setdefault(job.traits.tenant, job)
            known = [job for job in heads.values() if job.arrival_s <= seen + JOIN_S]
            return min(known, key=lambda job: (self.served[job.traits.tenant], job.traits.tenant)) if known else None
        if self.rules.order == "andes":
            head = min(self.waiting, key=lambda job: (self.ranks.get(job.id, math.inf), job.arrival_s, job.id))
            return head if head.arrival_s <= seen + JOIN_S else None
        return min(known, key=self.rank)

    def take_turns(self, t: float, seen: float) -> None:
        """Andes: serve those who would miss most text in the next quantum for the memory that they take."""
        rules = self.rules
        for job in self.arrived:
            self.enqueue(job, len(self.waiting))
        self.arrived = []
        known = [job for job in self.waiting if job.arrival_s <= seen + JOIN_S]

        def blocks(job: Job) -> int:
            if job in self.running and not job.prefilling:
                return self.blocks_for(job, math.ceil(self.context(job) + rules.drafts))
            return self.whole_prompt(job)

        def value(job: Job) -> tuple[float, float, int]:
            age = t - job.arrival_s
            read_for = age + rules.quantum_s - rules.expected_s  # by the end of the quantum
            if read_for <= JOIN_S:
                return 0.0, job.arrival_s, job.id
            buffered = max(0.0, len(job.tokens) / rules.speed - max(0.0, age - rules.expected_s))
            starved = max(0.0, rules.quantum_s - max(0.0, rules.expected_s - age) - buffered)
            return -round((starved / read_for) ** 2, 9) / blocks(job), job.arrival_s, job.id

        fixed = [job for job in self.running if job.preemptions >= rules.most_preemptions]
        seats, room = self.max_seqs - len(fixed), self.total - sum(blocks(job) for job in fixed)
        ranked = sorted([job for job in self.running if job not in fixed] + known, key=value)
        chosen: list[Job] = []
        for job in ranked:
            if seats and blocks(job) <= room:
                chosen.append(job)
                seats -= 1
                room -= blocks(job)
        if any(job in chosen for job in known):
            for job in [job for job in self.running if job not in fixed and job not in chosen]:
                self.preempt(job)
        waiting = [job for job in ranked if job not in self.running]
        ordered = [job for job in waiting if job in chosen] + [job for job in waiting if job not in chosen]
        self.ranks = {job.id: rank for rank, job in enumerate(ordered)}

    def victim(self) -> Job:
        if self.rules.order in ("fcfs", "vtc", "andes"):
            return self.running[-1]
        return max(self.running, key=self.rank)

    def schedule(self, t: float, seen: float) -> list[tuple[Job, int]]:
        """The tokens that each sequence processes in the step that starts at `t`; arrivals after `seen` wait."""
        rules = self.rules
        plan: list[tuple[Job, int]] = []
        left, preempted = self.budget, False
        self.extras = []
        fresh = not self.running
        self.give_back()
        self.evict()
        if rules.order == "andes" and (self.waiting or self.arrived) and t >= self.turn_s - JOIN_S:
            self.take_turns(t, seen)
            self.turn_s = t + rules.quantum_s
        # those that have their first token, then the one unfinished prompt; whoever has to go, all the others go on
        for job in sorted(self.running, key=lambda job: job.prefilling):
            if job not in self.running:
                continue
            tokens = min(job.length - job.computed, left) if job.prefilling else 1 + rules.drafts
            reach = job.computed + tokens if job.prefilling else math.ceil(self.context(job) + rules.drafts)
            need = self.blocks_for(job, reach) - job.blocks
            while job in self.running and need > self.free - self.ending_blocks:
                self.preempt(self.victim())
                preempted = True
            plan = [(other, each) for other, each in plan if other in self.running]
            if job in self.running:
                self.take(job, reach)
                self.evict()
                plan.append((job, tokens))
            left = self.budget - sum(each for _, each in plan)
        seats = self.max_seqs - self.ending_seats
        while (self.waiting or self.arrived) and not preempted and left > 0 and len(self.running) < seats:
            if rules.closed_batches and not fresh:
                break
            found = self.next_job(seen)
            if found is None:
                break
            job = found
            adapter = job.traits.adapter if rules.adapter_slots else 0
            used = {other.traits.adapter for other in self.running} - {0}
            if adapter and adapter not in self.adapters and len(used) >= rules.adapter_slots:
                break
            if rules.whole_prompts or rules.closed_batches:
                beyond = rules.drafts + (rules.parts > 1)
                lives = [ceil_div(each.prompt + each.output - 1 + beyond, self.block) for each in [*self.running, job]]
                if sum(lives) > self.total:
                    break
                if rules.whole_prompts and job.length - job.computed > left and any(j.prefilling for j, _ in plan):
                    break
            hits = [] if job.swapped else self.resident_prefix(job)
            in_use = len(self.used_units() & set(hits)) * self.unit // self.block
            if self.whole_prompt(job) - in_use > self.free - self.ending_blocks:
                break
            self.waiting.remove(job)
            if job.scheduled_s < 0:
                self.served[job.traits.tenant] += job.prompt
            if all(other.traits.tenant != job.traits.tenant for other in self.waiting):
                self.last_tenant = job.traits.tenant
            self.running.append(job)
            if job.swapped:
                self.extras.append((job, job.computed * rules.swap_s, 0.0, True))
                self.host_blocks += job.swapped
                job.swapped = 0
            else:
                resident = self.used_units() | set(self.idle)
                loads = [unit for unit in hits if unit not in resident]
                if loads:
                    self.extras.append((job, len(loads) * self.unit * rules.offload_s, 0.0, False))
                    self.host = [unit for unit in self.host if unit not in loads] + loads
                job.units = hits
                job.computed = max(job.computed, len(hits) * self.unit)
            self.idle = [unit for unit in self.idle if unit not in hits]
            if adapter and adapter not in self.adapters:
                if len(self.adapters) >= rules.adapter_slots:
                    self.adapters.remove(next(each for each in self.adapters if each not in used))
                self.adapters.append(adapter)
                self.extras.append((job, rules.adapter_load_s, 0.0, False))
            if job.scheduled_s < 0:
                job.scheduled_s = t
                if job.traits.images:
                    images = job.traits.images
                    self.extras.append((job, images * rules.image_s, images * rules.image_j, False))
            tokens = job.length - job.computed if rules.whole_prompts else min(job.length - job.computed, left)
            self.take(job, job.computed + tokens)
            self.evict()
            plan.append((job, tokens))
            left -= tokens
        return plan

    def context(self, job: Job) -> Fraction:
        """Tokens that a decoding job reads in the coming step."""
        return job.length + 1 + Fraction(job.rounds * self.rules.pace, self.rules.parts)

    def preempt(self, job: Job) -> None:
        self.running.remove(job)
        self.ranks.pop(job.id, None)
        self.part(job)
        self.release(job)
        job.blocks, job.tables = 0, {}
        decoding = not job.prefilling
        job.length = job.prompt + len(job.tokens)
        done = job.length - 1 if decoding else job.computed
        blocks = ceil_div(done, self.block)
        if 0 < blocks <= self.host_blocks:
            self.host_blocks -= blocks
            job.swapped, job.computed = blocks, done
            self.extras.append((job, done * self.rules.swap_s, 0.0, True))
        else:
            job.waste = [w + p for w, p in zip(job.waste, job.prefill)]
            job.prefill = [0.0, 0.0, 0.0]
            job.computed = job.cached
        job.preemptions += 1
        self.enqueue(job, 0)

    def part(self, job: Job) -> None:
        """A job stops running: its adapter is the last to have become unused, if nobody else uses it."""
        adapter = job.traits.adapter
        if adapter in self.adapters and all(other.traits.adapter != adapter for other in self.running):
            self.adapters.remove(adapter)
            self.adapters.append(adapter)

    def measure(self, plan: list[tuple[Job, int]]) -> Step:
        """What a step takes, extras included."""
        step = self.price(plan)
        step.seconds += sum(extra for _, extra, _, _ in self.extras)
        step.joules += sum(extra for _, _, extra, _ in self.extras)
        return step

    def execute(self, t: float, plan: list[tuple[Job, int]], out: Outcome) -> float:
        step = self.measure(plan)
        if self.failures and self.failures[0] < t + step.seconds:
            return self.fail(t, step.seconds, step.joules, out)
        self.deliver(t, step, step.seconds, step.joules, step.rest / step.tokens, step.rest_j / step.tokens, out)
        return t + step.seconds

    def price(self, plan: list[tuple[Job, int]], common: complex = 0j) -> Step:
        """What a step takes, extras left out; `common`: besides the own cost of a rank of a group."""
        timing, window = self.timing, self.timing.window
        decoding = [job for job, _ in plan if not job.prefilling]
        chunks = [(job, tokens) for job, tokens in plan if job.prefilling]
        n, total = len(decoding), sum(tokens for _, tokens in plan)
        contexts = [float(self.context(job)) for job in decoding]
        queries = 1 + self.rules.drafts
        pairs = [sum(job.computed + i for i in range(1, tokens + 1)) for job, tokens in chunks]
        pairs_w = [
            sum(min(job.computed + i, window) for i in range(1, tokens + 1)) if window else 0 for job, tokens in chunks
        ]
        cost = timing.step(n, total - n * queries, len(chunks))
        skew = n * max(contexts) - sum(contexts) if contexts else 0
        windowed = sum(min(c, window) for c in contexts) if window else 0
        joules_fixed = cost.fixed_j + common.imag + cost.eps_w * windowed
        joules = joules_fixed + cost.eps * sum(contexts) + timing.rho_j * sum(pairs) + timing.rho_w_j * sum(pairs_w)
        tau, rho, rho_w = cost.tau, timing.rho * cost.spread, timing.rho_w * cost.spread
        kappa = tau * (1 - cost.alpha)
        rest = cost.fixed_s + common.real + tau * cost.alpha * (skew + sum(contexts)) + cost.tau_w * windowed
        rest += cost.omega * sum(float(self.context(job)) - job.prompt for job in decoding)
        seconds = rest + kappa * sum(contexts) + rho * sum(pairs) + rho_w * sum(pairs_w)
        if joules > seconds * timing.headroom_w:  # the chip slows down to its power limit
            head = timing.headroom_w
            rest, kappa = joules_fixed / head, cost.eps / head
            rho, rho_w, seconds = timing.rho_j / head, timing.rho_w_j / head, joules / head
        return Step(
            decoding, chunks, contexts, pairs, pairs_w, total, seconds, joules, rest, joules_fixed,
            kappa, cost.eps, rho, rho_w,
        )  # fmt: skip

    def deliver(
        self, t: float, step: Step, seconds: float, joules: float, part_s: float, part_j: float, out: Outcome
    ) -> None:
        """Book a step that took `seconds` and `joules`: `part_s` and `part_j` for each token, attention by context."""
        timing, end = self.timing, t + seconds
        mean = self.intensity.integral(t, end) / seconds
        out.steps.append((t, seconds, len(step.decoding)))
        out.busy_s += seconds
        out.dyn_j += joules
        out.busy_g += (self.active_w * seconds + joules) * mean
        out.most_blocks = max(out.most_blocks, self.total - self.free)
        assert out.most_blocks <= self.total
        for job, own_s, own_j, wasted in self.extras:
            if job not in self.running and job.cancel_s < end:  # nobody is there any more to charge it to
                out.busy_s, out.dyn_j = out.busy_s - own_s, out.dyn_j - own_j
                out.busy_g -= (self.active_w * own_s + own_j) * mean
                out.lost_s, out.lost_j = out.lost_s + own_s, out.lost_j + own_j
                continue
            self.book(job.waste if wasted else job.prefill, own_s, own_j, mean)
        queries = 1 + self.rules.drafts
        for job, context in zip(step.decoding, step.contexts):
            own_s, own_j = queries * part_s, queries * part_j
            self.book(job.decode, own_s + step.kappa * context, own_j + step.eps * context, mean)
            job.rounds += 1
            gained = job.before + job.rounds * self.rules.pace // self.rules.parts
            for _ in range(min(gained, job.target) - len(job.tokens)):
                job.tokens.append(end)
                self.count(job)
        for (job, tokens), own, own_w in zip(step.chunks, step.pairs, step.pairs_w):
            self.book(
                job.prefill,
                tokens * part_s + step.rho * own + step.rho_w * own_w,
                tokens * part_j + timing.rho_j * own + timing.rho_w_j * own_w,
                mean,
            )
            job.computed += tokens
        for job in sorted(step.decoding, key=lambda job: job.id):
            self.finish(job)
        for job, _ in step.chunks:
            if not job.prefilling:
                job.tokens.append(end)
                self.count(job)
                job.before, job.rounds = len(job.tokens), 0
                self.register(job, job.prompt)
                self.finish(job)

    def fail(self, t: float, seconds: float, joules: float, out: Outcome) -> float:
        """The step that starts at `t` is cut short; whoever is there by then has failed."""
        end = self.failures.pop(0)
        self.lose(t, end, seconds, joules, out)
        return end

    def lose(self, t: float, end: float, seconds: float, joules: float, out: Outcome) -> None:
        out.lost_s += end - t
        out.lost_j += joules * (end - t) / seconds
        while self.coming and self.coming[0].arrival_s < end:
            self.arrived.append(self.coming.pop(0))
        for job in [*self.running, *self.waiting, *self.arrived]:
            left = job not in self.running and job.cancel_s <= end  # who waits is cancelled at once
            self.drop(job, CANCELLED if left else FAILED)
        self.forget()

    def count(self, job: Job) -> None:
        self.served[job.traits.tenant] = self.served.get(job.traits.tenant, 0.0) + 2.0

    def register(self, job: Job, tokens: int) -> None:
        """A computed prompt's units can be shared from now on, but for those that others computed meanwhile."""
        if self.unit:
            resident = self.used_units() | set(self.idle)
            full = job.hashes[len(job.units) : tokens // self.unit]
            job.units = job.units + [unit for unit in full if unit not in resident]

    def finish(self, job: Job) -> None:
        if len(job.tokens) == job.target:
            free = self.free
            self.register(job, job.prompt + job.target - 1)
            self.finished.append(job)
            self.running.remove(job)
            self.part(job)
            if job.target < job.output:
                self.leaving.append(job)
            else:
                self.release(job)
                job.blocks = 0
            if self.rules.async_scheduling:
                self.ending_seats += 1
                self.ending_blocks += self.free - free

    def gone(self, job: Job) -> None:
        """The KV of a job that left has been copied."""
        self.leaving.remove(job)
        self.release(job)
        job.blocks = 0

    def book(self, account: list[float], seconds: float, joules: float, intensity: float) -> None:
        account[0] += seconds
        account[1] += joules
        account[2] += (self.active_w * seconds + joules) * intensity

"""What a request would meet at a pool, and take of it: closed forms of its mean loads, as a router can know them.

Nothing is asked of a replica, so an estimate costs the same for one and for a thousand of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from sim.accounting.ledger import rates_of
from sim.hardware.expert_group import GroupTiming
from sim.hardware.timing import StepCost
from sim.units import JOULES_PER_KWH

if TYPE_CHECKING:
    from sim.fleet.pool import LivePool


class Loads(Protocol):
    """The loads that estimates are made of; those of a moment ago do as well.

    Attributes:
        outstanding, outstanding_tokens, output_tokens: requests there and unfinished, their prompt + output tokens, and
            output tokens alone.
        waiting: requests queued for a place in a batch.
    """

    @property
    def outstanding(self) -> int: ...

    @property
    def outstanding_tokens(self) -> int: ...

    @property
    def output_tokens(self) -> int: ...

    @property
    def waiting(self) -> int: ...


class Times(NamedTuple):
    """Predicted times of a request, as its client sees them [s]: to the first token, each further one, to the last."""

    ttft_s: float
    tpot_s: float
    e2e_s: float


class Work(NamedTuple):
    """What the books would charge a request with: its share of the steps it takes part in.

    Attributes:
        busy_s: seconds of a replica [s].
        energy_j: facility energy [J].
        cost_usd: rent or ownership of these seconds, and electricity [USD]; NaN where unknown.
        embodied_g: embodied carbon of these seconds [g CO2e]; NaN where unknown.
    """

    busy_s: float
    energy_j: float
    cost_usd: float
    embodied_g: float


class Estimator:
    """Estimates of one pool.

    Args:
        pool: whose timing, link and rates count.
    """

    def __init__(self, pool: LivePool) -> None:
        engine = pool.spec.engine
        self._pool, self._timing, self._engine = pool, pool.timing, engine
        self._replicas, self._seats = pool.replicas, engine.max_num_seqs
        self._budget = engine.max_num_batched_tokens * pool.spec.pp
        self._kv_tokens = pool.blocks * engine.block_size
        link = pool.link.spec if pool.link is not None else None
        self._link_s = 0.0 if link is None else 2.0 * link.median_latency_s + link.mean_grant_s
        self._steps: dict[int, StepCost] = {}  # of pure decode, by batch
        self._chunks: dict[int, StepCost] = {}  # of pure prefill, by tokens
        rates = rates_of(pool)
        self._active_w, self._headroom_w = rates.active_w, pool.timing.headroom_w
        self._idle_w = rates.idle_w
        self._usd_per_s, self._usd_per_j = rates.usd_per_s, rates.usd_per_facility_j
        self._embodied_g_per_s = float("nan") if rates.embodied_g_per_s is None else rates.embodied_g_per_s[1]

    def times(self, loads: Loads, prompt: int, output: int, cached: int = 0) -> Times:
        """Times of a request that is sent there now.

        Client link both ways, front end and detokenizer; prefill of all prompts waiting and of its own, but for
        `cached` tokens; where seats or memory are taken, a wait for as many service times as fill them. Then steps of a
        batch with the pool's mean load and one more, held up by the prompts of those that take each other's place:
        each of a batch of n is replaced once while it emits its tokens.
        """
        outstanding = loads.outstanding
        load = outstanding / self._replicas
        mean_tokens = loads.outstanding_tokens / outstanding if outstanding else float(prompt + output)
        mean_output = loads.output_tokens / outstanding if outstanding else float(output)
        mean_prompt = mean_tokens - mean_output
        seats = max(1.0, min(self._seats, self._kv_tokens / mean_tokens))
        others = min(load, seats - 1.0)
        step_s = self._step_s(int(others) + 1, max(mean_tokens - 0.5 * mean_output, 1.0))
        ahead = prompt - cached + loads.waiting / self._replicas * mean_prompt
        prefill_s = self._prefill_s(ahead) + self._timing.rho * (prompt * prompt - cached * cached) * 0.5
        if others:
            step_s += others / mean_output * self._prefill_s(mean_prompt)
        wait_s = max(0.0, load - seats) / seats * mean_output * step_s
        link_s, pace_s = self._link_s, step_s
        front = self._pool.front_end
        if front is not None:
            link_s += front.predicted_s(prompt)
        if self._engine.detokenize_s:
            out_s = (int(others) + 1) * self._engine.detokenize_s  # for a step's tokens, that of the last in full
            link_s += out_s
            pace_s = max(step_s, out_s)
        ttft_s = link_s + wait_s + prefill_s
        return Times(ttft_s, pace_s, ttft_s + step_s + (output - 1) * pace_s)

    def work(self, prompt: int, output: int, cached: int, batch: int) -> Work:
        """What a request takes: its own prefill, and its share of decode steps of `batch` sequences like it."""
        timing = self._timing
        computed = prompt - cached
        chunk = min(computed, self._budget)
        pairs = (prompt * prompt - cached * cached) * 0.5
        cost = self._chunk(chunk)
        prefill_s = computed / chunk * cost.fixed_s + timing.rho * pairs
        prefill_j = computed / chunk * cost.fixed_j + timing.rho_j * pairs
        step = self._step(batch)
        context = batch * (prompt + 0.5 * output)
        steps = output / (batch * self._pool.tokens_a_step)
        decode_s = steps * (step.fixed_s + (step.tau + step.tau_w) * context)
        decode_j = steps * (step.fixed_j + (step.eps + step.eps_w) * context)
        # a chip at its power limit slows down
        busy_s = max(prefill_s, prefill_j / self._headroom_w) + max(decode_s, decode_j / self._headroom_w)
        energy_j = self._pool.pue_now * (self._active_w * busy_s + prefill_j + decode_j)
        tariff = self._pool.tariff
        usd_per_j = self._usd_per_j if tariff is None else tariff.at(self._pool.env.now) / JOULES_PER_KWH
        cost_usd = self._usd_per_s * busy_s + usd_per_j * energy_j
        return Work(busy_s, energy_j, cost_usd, self._embodied_g_per_s * busy_s)

    def present_batch(self, loads: Loads) -> int:
        """Sequences that decode beside each other in a replica once one more has come."""
        return min(int(loads.outstanding / self._replicas) + 1, self._seats)

    def full_batch(self, prompt: int, output: int, tpot_s: float) -> int:
        """Most requests of these lengths that a replica can decode at once at `tpot_s` a token or less; at least 1.

        In a steady state each of them was admitted once, and its prefill held up all others: a token takes a step and
        its share of those, `step(n) + (n - 1) prefill / output`.
        """
        prefill_s = self._prefill_s(prompt) + self._timing.rho * prompt * prompt * 0.5
        low, high = 1, max(1, min(self._seats, self._kv_tokens // (prompt + output)))
        while low < high:
            batch = (low + high + 1) // 2
            token_s = self._step_s(batch, prompt + 0.5 * output) + (batch - 1) * prefill_s / output
            low, high = (batch, high) if token_s <= tpot_s else (low, batch - 1)
        return low

    def power_w(self, loads: Loads) -> float:
        """Facility power that the pool draws now, as if its requests were spread evenly and all decoding [W]."""
        outstanding = loads.outstanding
        busy = min(outstanding, self._replicas)
        watts = self._idle_w * (self._replicas - busy)
        if busy:
            batch = min(max(outstanding // self._replicas, 1), self._seats)
            context = batch * (loads.outstanding_tokens - 0.5 * loads.output_tokens) / outstanding
            step = self._step(batch)
            dynamic_j = step.fixed_j + (step.eps + step.eps_w) * context
            step_s = step.fixed_s + (step.tau + step.tau_w) * context
            watts += busy * (self._active_w + min(dynamic_j / step_s, self._headroom_w))
        return self._pool.pue_now * watts

    def _step_s(self, batch: int, context: float) -> float:
        """Time of a token in a decode step of `batch` sequences with a mean `context` each [s]."""
        cost = self._step(batch)
        return (cost.fixed_s + (cost.tau + cost.tau_w) * batch * context) / self._pool.tokens_a_step

    def _prefill_s(self, tokens: float) -> float:
        """Time to compute so many prompt tokens in full chunks, attention left out [s]."""
        chunk = int(min(tokens, self._budget))
        return tokens / chunk * self._chunk(chunk).fixed_s

    def _step(self, batch: int) -> StepCost:
        known = self._steps.get(batch)
        if known is None:
            known = self._steps[batch] = self._with_group(self._timing.step(batch, 0, 0), batch)
        return known

    def _chunk(self, tokens: int) -> StepCost:
        known = self._chunks.get(tokens)
        if known is None:
            known = self._chunks[tokens] = self._with_group(self._timing.step(0, tokens, 1), tokens)
        return known

    def _with_group(self, cost: StepCost, tokens: int) -> StepCost:
        """Of a data-parallel rank, what its group adds where all ranks have as many tokens."""
        if not self._pool.groups:
            return cost
        common = cast(GroupTiming, self._timing).common(tokens * self._pool.spec.dp, tokens)
        return cost._replace(fixed_s=cost.fixed_s + common.real, fixed_j=cost.fixed_j + common.imag)

"""What one replica serves in a steady state, in closed form: its batch, its time a token, its requests a second."""

from __future__ import annotations

from dataclasses import dataclass

from sim.fleet.replicas import replica_timing
from sim.fleet.spec import Pool
from sim.hardware.sizing import check_fit, kv_block_bytes, kv_layout


@dataclass(frozen=True, slots=True)
class SteadyState:
    """A replica that is always as full as its bounds allow.

    Attributes:
        batch: requests that decode at once.
        token_s: time of a token of each, prompts of those that take each other's place included [s].
        prefill_s: time to compute a prompt [s].
        requests_per_s: served [1/s]; 0 where not even one request meets the bounds.
        blocks: KV blocks that it has, and blocks_each those that a request holds at its end.
        block_bytes: of a block on all its xPUs [bytes].
    """

    batch: int
    token_s: float
    prefill_s: float
    requests_per_s: float
    blocks: int
    blocks_each: int
    block_bytes: float


def steady_state(
    pool: Pool, prompt: float, output: float, tpot_s: float = float("inf"), ttft_s: float = float("inf")
) -> SteadyState:
    """The largest batch of requests of these mean lengths that seats, memory and a bound on the time a token allow.

    Each request of a batch of n is replaced once while it emits its tokens, and the prompt of the next holds all up:
    a token takes step(n) + n (what a prompt adds to the steps it is in) / output, and n / (output x that) requests are
    served a second. A flooded replica, simulated, is within 6 % of it.

    Args:
        pool: whose timing, engine and memory count; of one replica.
        prompt, output: mean tokens of a request.
        tpot_s: bound on the time a token [s]; ttft_s: on the time to the first one of a request that does not wait [s].

    Raises:
        InputError: the pool cannot hold its model.
    """
    timing, engine = replica_timing(pool), pool.engine
    blocks, each = check_fit(pool), kv_layout(pool).decoding(int(prompt + output))
    chunk = max(1, int(min(prompt, engine.max_num_batched_tokens)))
    pairs_s = timing.rho * prompt * prompt * 0.5
    prefill_s = prompt / chunk * timing.step(0, chunk, 1).fixed_s + pairs_s
    context = prompt + 0.5 * output

    def token_s(batch: int) -> float:
        cost = timing.step(batch, 0, 0)
        # a chunk goes into a step that decodes anyway, and lengthens it
        longer_s = prompt / chunk * (timing.step(batch, chunk, 1).fixed_s - cost.fixed_s) + pairs_s
        return cost.fixed_s + (cost.tau + cost.tau_w) * batch * context + batch * longer_s / output

    low, high = 1, max(1, min(engine.max_num_seqs, blocks // each))
    while low < high:
        batch = (low + high + 1) // 2
        low, high = (batch, high) if token_s(batch) <= tpot_s else (low, batch - 1)
    pace_s = token_s(low)
    met = pace_s <= tpot_s and prefill_s <= ttft_s and blocks > each
    block = kv_block_bytes(
        pool.model, pool.xpu, pool.tp, pool.kv_precision, engine.block_size, pool.pp, pool.frees_windows
    )
    served = low / (output * pace_s) if met else 0.0
    return SteadyState(low, pace_s, prefill_s, served, blocks, each, block * pool.tp * pool.pp)

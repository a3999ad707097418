"""What steps cost in the form that the engine computes with, kept for all engines of a pool."""

from __future__ import annotations

from bisect import bisect_left

from sim.hardware.timing import StepCost, StepTiming

#: a `StepCost` as seconds + 1j * joules: fixed, kappa, skew [s], windowed, whether it can never be capped, spread and
#: omega [s]
Cost = tuple[complex, complex, float, complex, bool, float, float]


class Shared:
    """What the engines of one pool share.

    Args:
        timing: what steps cost.
        padding: sizes in tokens, ascending, to which smaller steps are padded; larger steps run as they are.
        parts: parts of a token that contexts are counted in.

    Attributes:
        waiting: sequences that wait, over all engines: what routers read of a pool without asking each.
        decode_costs: costs of pure decode steps by batch size.
        mixed_costs: costs of steps with prefill, by (decoding sequences, prompt tokens, prompts).
    """

    __slots__ = ("_padding", "_parts", "_timing", "decode_costs", "mixed_costs", "waiting")

    def __init__(self, timing: StepTiming, padding: tuple[int, ...] = (), parts: int = 1) -> None:
        self._timing, self._padding, self._parts = timing, padding, parts
        self.waiting = 0
        self.decode_costs: dict[int, Cost] = {}
        self.mixed_costs: dict[tuple[int, int, int], Cost] = {}

    def cost(self, decoding: int, prefill_tokens: int, prefills: int) -> Cost:
        """Find the cost of one kind of step, and keep it."""
        step = self._timing.step(decoding, prefill_tokens, prefills)
        padded = self._padded(step, decoding, prefill_tokens, prefills)
        cost = (
            complex(padded.fixed_s, padded.fixed_j),
            complex(step.tau * (1.0 - step.alpha), step.eps) / self._parts,
            step.tau * step.alpha / self._parts,
            complex(step.tau_w, step.eps_w) / self._parts,
            step.never_capped and padded.never_capped,
            step.spread,
            step.omega / self._parts,
        )
        if prefills:
            self.mixed_costs[decoding, prefill_tokens, prefills] = cost
        else:
            self.decode_costs[decoding] = cost
        return cost

    def padded(self, tokens: int) -> int:
        """Tokens that a step over `tokens` tokens computes."""
        at = bisect_left(self._padding, tokens)
        return self._padding[at] if at < len(self._padding) else tokens

    def _padded(self, step: StepCost, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        """Cost of the step that runs in its place: CUDA graphs exist for some sizes only, and padding is computed."""
        tokens = decoding + prefill_tokens
        more = self.padded(tokens) - tokens
        if not more:
            return step
        if prefills:
            return self._timing.step(decoding, prefill_tokens + more, prefills)
        return self._timing.step(decoding + more, 0, 0)


def capped(charge: complex, head_w: float) -> complex:
    """The same energy over the time that it takes at the power limit, `head_w` above static power [W]."""
    return complex(charge.imag / head_w, charge.imag)

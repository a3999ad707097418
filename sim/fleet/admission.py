"""What admitting a request takes besides its tokens: encoding its images, and reading the context that it continues."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from sim.fleet.spec import Pool
from sim.hardware.encoder import encoder
from sim.hardware.timing import StepTiming
from sim.request import Request
from sim.serving.prefill import chunk_pairs


def on_admission(pool: Pool, timing: StepTiming) -> Callable[[Request], complex]:
    """What admitting a request on a pool's replica takes, as seconds + 1j * joules of dynamic energy.

    Prompts are costed by arithmetic, `rho` a pair of query and context. The few tokens with which a leg of a journey
    continues a long context are bound by reading that context instead, as decode steps are:

        max(0, tau * context - rho * pairs)          is what this takes beyond the arithmetic
    """
    encode = encoder(pool)
    step = cache(lambda: timing.step(1, 0, 0))  # only asked for where there are legs

    def charge(request: Request) -> complex:
        if not request.cached or request.leg is None:
            return encode(request)
        context, fresh = request.prompt, request.prompt - request.cached
        pairs, pairs_w = chunk_pairs(request.cached, fresh, 1, timing.window)
        seen = min(context, timing.window)
        alone = step()
        seconds = alone.tau * context - timing.rho * pairs + alone.tau_w * seen - timing.rho_w * pairs_w
        joules = alone.eps * context - timing.rho_j * pairs + alone.eps_w * seen - timing.rho_w_j * pairs_w
        return encode(request) + complex(max(0.0, seconds), max(0.0, joules))

    return charge

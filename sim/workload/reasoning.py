"""Hidden thinking: output tokens that come before the answer and that the user does not see."""

from __future__ import annotations

import numpy as np

from sim.workload import checks
from sim.workload.lengths import IntArray, Marginal

KEY = "workload.reasoning"


class Reasoning:
    """A share of requests is thought about before it is answered.

    Args:
        tokens: hidden tokens of such a request, a number or a distribution of lengths.
        share: of requests that are thought about.
        added: whether the tokens come on top of the drawn output, rather than being part of it.
    """

    def __init__(self, tokens: int | Marginal, share: float = 1.0, added: bool = True) -> None:
        if isinstance(tokens, int) or not callable(getattr(tokens, "quantile", None)):
            tokens = checks.tokens(f"{KEY}.tokens", tokens)
        self.tokens: int | Marginal = tokens
        self.share = checks.number(f"{KEY}.share", share, "a share from 0 to 1", 0.0, 1.0)
        self.added = checks.flag(f"{KEY}.added", added)

    def draw(self, rng: np.random.Generator, n: int) -> IntArray:
        """Draw the hidden tokens of `n` requests."""
        u = rng.random((n, 2))
        hidden = np.full(n, self.tokens) if isinstance(self.tokens, int) else self.tokens.quantile(u[:, 1])
        return np.where(u[:, 0] < self.share, hidden, 0)


def visible(hidden: IntArray, output: IntArray) -> IntArray:
    """Hidden tokens held to where one token of the output is left to be seen."""
    return np.minimum(hidden, output - 1)

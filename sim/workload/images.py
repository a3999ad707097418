"""Images in prompts: how many a request has, and how many prompt tokens an encoder makes of them."""

from __future__ import annotations

import numpy as np

from sim.errors import InputError
from sim.workload import checks
from sim.workload.counts import counts
from sim.workload.lengths import IntArray, Marginal

KEY = "workload.images"


class Images:
    """A share of requests carries images.

    Args:
        tokens: prompt tokens an image, a number or a distribution of lengths. A trace that has them itself needs none.
        share: of requests that carry any; None is 1.
        counts: how many such a request carries; see `sim.workload.counts`. None is 1.
        added: whether they come on top of the prompt's length, rather than being part of it. None: they do in
            workloads that are drawn, and do not in traces.
    """

    def __init__(
        self,
        tokens: int | Marginal | None = None,
        share: float | None = None,
        counts: object = None,
        added: bool | None = None,
    ) -> None:
        self.tokens = tokens
        if tokens is not None and not callable(getattr(tokens, "quantile", None)):
            self.tokens = checks.tokens(f"{KEY}.tokens", tokens)
        self.drawn = share is not None or counts is not None
        self._share = 1.0 if share is None else checks.number(f"{KEY}.share", share, "a share from 0 to 1", 0.0, 1.0)
        self._counts = None if counts is None else _counts(counts)
        self.added = None if added is None else checks.flag(f"{KEY}.added", added)

    def draw(self, rng: np.random.Generator, n: int) -> IntArray:
        """Draw how many images `n` requests carry."""
        u = rng.random((n, 2))
        many = np.ones(n, dtype=np.int64) if self._counts is None else self._counts.quantile(u[:, 1])
        return np.where(u[:, 0] < self._share, many, 0)

    def draw_tokens(self, rng: np.random.Generator, images: IntArray) -> IntArray:
        """Tokens of requests that carry so many images each."""
        if self.tokens is None:
            raise InputError(f"{KEY}.tokens", None, "tokens an image: a whole number, or a distribution of lengths")
        if isinstance(self.tokens, int):
            return images * self.tokens
        each = self.tokens.quantile(rng.random(int(images.sum())))
        ends = np.cumsum(images)
        sums = np.concatenate([[0], np.cumsum(each)])
        return np.asarray(sums[ends] - sums[ends - images])


def _counts(value: object) -> Marginal:
    return counts(f"{KEY}.counts", value)

"""How long prompts and outputs are: marginal distributions, and models that join two of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sim.errors import InputError
from sim.workload import checks

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Z99 = 2.3263478740408408  #: 99th percentile of the standard normal law


class Marginal(Protocol):
    """The distribution of one length."""

    def quantile(self, u: FloatArray) -> IntArray:
        """Lengths [tokens], at least 1, at probabilities `u` in [0, 1]; never decreasing in `u`."""
        ...


class LengthModel(Protocol):
    """The joint distribution of prompt and output lengths."""

    def sample(self, rng: np.random.Generator, n: int) -> tuple[IntArray, IntArray]:
        """Draw `n` prompt and output lengths [tokens], each int64 [n] and at least 1.

        Drawing n and then m gives the same lengths as drawing n + m at once.
        """
        ...


class FixedLength:
    """A marginal with one value.

    Args:
        tokens: the length [tokens].
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = checks.tokens("workload.lengths.tokens", tokens)

    def quantile(self, u: FloatArray) -> IntArray:
        """The same length [tokens] at every probability."""
        return np.full(len(u), self.tokens, dtype=np.int64)


class LogNormal:
    """A log-normal marginal, rounded to whole tokens and clipped to [minimum, maximum].

    Two numbers fix it: (median, sigma), (median, mean), (median, p99) or (mean, sigma). They describe the law before
    clipping.

    Args:
        median, mean, p99: of the length [tokens].
        sigma: standard deviation of its natural logarithm.
        minimum, maximum: bounds [tokens]; what lies beyond is moved onto them, as a server's length limit does.
    """

    def __init__(
        self,
        median: float | None = None,
        sigma: float | None = None,
        mean: float | None = None,
        p99: float | None = None,
        minimum: int = 1,
        maximum: int = checks.MAX_TOKENS,
    ) -> None:
        self.median, self.sigma = _log_normal_law(median, sigma, mean, p99)
        self.minimum = checks.tokens("workload.lengths.minimum", minimum)
        self.maximum = checks.tokens("workload.lengths.maximum", maximum)
        if self.maximum < self.minimum:
            raise InputError("workload.lengths.maximum", maximum, f"at least the minimum ({self.minimum} tokens)")

    def quantile(self, u: FloatArray) -> IntArray:
        """Lengths [tokens] at probabilities `u`."""
        from scipy.special import ndtri  # costs 0.1 s to import; only workloads with log-normal lengths pay it

        logarithm = math.log(self.median) + self.sigma * ndtri(u)
        # Clipped before exp, since ndtri(0) and ndtri(1) are infinite.
        clipped = np.clip(logarithm, math.log(self.minimum), math.log(self.maximum))
        return _whole(np.exp(clipped))


class EmpiricalQuantiles:
    """A marginal given by a table of quantiles, linear between its rows and rounded to whole tokens.

    A value that repeats over a stretch of q is an atom; two rows that share a value of q make a step.

    Args:
        table: rows (q, tokens); q from 0 to 1, never decreasing; tokens at least 1, never decreasing. Or the same as
            text, such as "0 10, 0.5 120, 1 800".
    """

    def __init__(self, table: Sequence[Sequence[float]] | str) -> None:
        accepted = "rows [q, tokens]: q from 0 to 1 and tokens from 1 to 1e9, both never decreasing"
        rows = _rows(table, accepted) if isinstance(table, str) else table
        rows = checks.pairs("workload.lengths.table", rows, accepted)
        columns = np.array(rows)
        self._q, self._tokens = columns[:, 0].copy(), columns[:, 1].copy()
        if (self._q[0], self._q[-1]) != (0.0, 1.0) or self._tokens[0] < 1.0 or self._tokens[-1] > checks.MAX_TOKENS:
            raise InputError("workload.lengths.table", [rows[0], rows[-1]], accepted)
        falls = (np.diff(self._q) < 0.0) | (np.diff(self._tokens) < 0.0)
        if falls.any():
            at = int(np.argmax(falls))
            raise InputError("workload.lengths.table", rows[at : at + 2], accepted)

    def quantile(self, u: FloatArray) -> IntArray:
        """Lengths [tokens] at probabilities `u`."""
        return _whole(np.interp(u, self._q, self._tokens))


class Fixed:
    """Every request has the same lengths.

    Args:
        prompt, output: lengths [tokens].
    """

    def __init__(self, prompt: int, output: int) -> None:
        self.prompt = checks.tokens("workload.lengths.prompt", prompt)
        self.output = checks.tokens("workload.lengths.output", output)

    def sample(self, rng: np.random.Generator, n: int) -> tuple[IntArray, IntArray]:
        """Return `n` equal lengths [tokens]; nothing is drawn."""
        return np.full(n, self.prompt, dtype=np.int64), np.full(n, self.output, dtype=np.int64)


class Independent:
    """Prompt and output lengths drawn independently.

    Args:
        prompt, output: marginal distributions.
    """

    def __init__(self, prompt: Marginal, output: Marginal) -> None:
        self.prompt = _marginal("workload.lengths.prompt", prompt)
        self.output = _marginal("workload.lengths.output", output)

    def sample(self, rng: np.random.Generator, n: int) -> tuple[IntArray, IntArray]:
        """Draw `n` prompt and output lengths [tokens]."""
        u = rng.random((n, 2))
        return self.prompt.quantile(u[:, 0]), self.output.quantile(u[:, 1])


class Copula:
    """Prompt and output lengths joined by a Gaussian copula: any marginals, one correlation.

    The rank correlation (Spearman) of continuous marginals is 6/pi * asin(rho/2).
    Source: Kruskal, Ordinal measures of association, JASA 1958.

    Args:
        prompt, output: marginal distributions.
        rho: correlation of the underlying normal variables, in [-1, 1].
    """

    def __init__(self, prompt: Marginal, output: Marginal, rho: float) -> None:
        self.prompt = _marginal("workload.lengths.prompt", prompt)
        self.output = _marginal("workload.lengths.output", output)
        self.rho = checks.number("workload.lengths.rho", rho, "a correlation from -1 to 1", -1.0, 1.0)

    def sample(self, rng: np.random.Generator, n: int) -> tuple[IntArray, IntArray]:
        """Draw `n` prompt and output lengths [tokens]."""
        z = rng.standard_normal((n, 2))
        z_output = self.rho * z[:, 0] + math.sqrt(1.0 - self.rho**2) * z[:, 1]
        return self.prompt.quantile(normal_cdf(z[:, 0])), self.output.quantile(normal_cdf(z_output))


def _rows(text: str, accepted: str) -> list[list[float]]:
    """Parse a table given as text."""
    rows = []
    for row in text.split(","):
        try:
            rows.append([float(cell) for cell in row.split()])
        except ValueError:
            raise InputError("workload.lengths.table", row.strip(), accepted) from None
    return rows


def _whole(lengths: FloatArray) -> IntArray:
    """Round to the nearest whole token."""
    rounded: IntArray = np.rint(lengths).astype(np.int64)
    return rounded


def normal_cdf(z: FloatArray) -> FloatArray:
    """Standard normal distribution function.

    By `math.erfc` (0.1 us a value), since importing `scipy.special` alone takes as long as a million values.
    """
    return 0.5 * np.fromiter(map(math.erfc, (z * -math.sqrt(0.5)).tolist()), np.float64, len(z))


def _log_normal_law(
    median: float | None, sigma: float | None, mean: float | None, p99: float | None
) -> tuple[float, float]:
    """Median [tokens] and sigma of a log-normal law from two of its numbers: mean = median * exp(sigma^2 / 2)."""
    given = {"median": median, "sigma": sigma, "mean": mean, "p99": p99}
    law = {name: _law_number(name, value) for name, value in given.items() if value is not None}
    if law.keys() == {"median", "sigma"}:
        return law["median"], law["sigma"]
    if law.keys() == {"mean", "sigma"}:
        return law["mean"] * math.exp(-0.5 * law["sigma"] ** 2), law["sigma"]
    for name in ("mean", "p99"):
        if law.keys() == {"median", name}:
            if law[name] < law["median"]:
                raise InputError(
                    f"workload.lengths.{name}", law[name], f"at least the median ({law['median']:g} tokens)"
                )
            ratio = math.log(law[name] / law["median"])
            return law["median"], math.sqrt(2.0 * ratio) if name == "mean" else ratio / Z99
    accepted = "two of them: median and sigma | median and mean | median and p99 | mean and sigma"
    raise InputError("workload.lengths", law, accepted)


def _law_number(name: str, value: object) -> float:
    if name == "sigma":
        return checks.number("workload.lengths.sigma", value, "a number from 0 to 10", 0.0, 10.0)
    accepted = "a length from 1 to 1e9 tokens"
    return checks.number(f"workload.lengths.{name}", value, accepted, 1.0, checks.MAX_TOKENS)


def _marginal(key: str, value: Marginal) -> Marginal:
    if not callable(getattr(value, "quantile", None)):
        raise InputError(key, value, "a distribution of lengths, such as EmpiricalQuantiles, LogNormal or FixedLength")
    return value

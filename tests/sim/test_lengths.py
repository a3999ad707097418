"""Length marginals and models: laws, rounding, clipping, correlation, determinism and bad arguments."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim.errors import InputError
from sim.workload.lengths import (
    Copula,
    EmpiricalQuantiles,
    Fixed,
    FixedLength,
    Independent,
    LengthModel,
    LogNormal,
    Marginal,
)

U = (np.arange(200_000) + 0.5) / 200_000


@pytest.mark.parametrize(
    "law",
    [
        LogNormal(median=1020, sigma=0.5),
        LogNormal(median=1020, mean=1020 * math.exp(0.125)),
        LogNormal(median=1020, p99=1020 * math.exp(0.5 * 2.3263478740408408)),
        LogNormal(mean=1020 * math.exp(0.125), sigma=0.5),
    ],
)
def test_log_normal_by_any_two_of_its_numbers(law: LogNormal) -> None:
    lengths = law.quantile(U)
    assert np.median(lengths) == pytest.approx(1020, abs=1)
    assert lengths.mean() == pytest.approx(1020 * math.exp(0.125), rel=1e-3)
    assert np.std(np.log(lengths)) == pytest.approx(0.5, rel=1e-3)


def test_log_normal_clips_onto_its_bounds() -> None:
    lengths = LogNormal(median=100, sigma=2.0, minimum=16, maximum=512).quantile(np.append(U, [0.0, 1.0]))
    assert (lengths.min(), lengths.max()) == (16, 512)
    beyond = 1.0 - stats.norm.cdf(math.log(512 / 100) / 2.0)
    assert (lengths == 512).mean() == pytest.approx(beyond, abs=2e-3)


def test_quantile_table_is_linear_with_atoms_and_steps() -> None:
    law = EmpiricalQuantiles([(0.0, 10), (0.2, 10), (0.2, 50), (0.6, 90), (1.0, 100)])
    np.testing.assert_array_equal(
        law.quantile(np.array([0.0, 0.1, 0.21, 0.4, 0.6, 0.8, 1.0])), [10, 10, 51, 70, 90, 95, 100]
    )


def test_quantile_table_as_text_is_the_same() -> None:
    rows = EmpiricalQuantiles([(0.0, 1.5), (0.25, 20.5), (1.0, 800.5)])
    text = EmpiricalQuantiles("0 1.5, 0.25 20.5,\n 1 800.5")
    np.testing.assert_array_equal(rows.quantile(U), text.quantile(U))


def test_half_integer_knots_reproduce_a_discrete_law_exactly() -> None:
    law = EmpiricalQuantiles([(0.0, 1.5), (0.3, 2.5), (0.3, 6.5), (1.0, 7.5)])
    values, counts = np.unique(law.quantile(U), return_counts=True)
    np.testing.assert_array_equal(values, [2, 7])
    np.testing.assert_allclose(counts / len(U), [0.3, 0.7], atol=1e-4)


def test_fixed_lengths() -> None:
    prompt, output = Fixed(512, 256).sample(np.random.default_rng(0), 3)
    np.testing.assert_array_equal(prompt, [512] * 3)
    np.testing.assert_array_equal(output, [256] * 3)
    np.testing.assert_array_equal(FixedLength(7).quantile(U[:2]), [7, 7])


TABLE = EmpiricalQuantiles([(0, 1), (0.5, 2000), (1, 9000)])
OTHER = LogNormal(median=300, sigma=1.0)


@pytest.mark.parametrize("rho", [-0.8, 0.0, 0.0762, 0.6])
def test_copula_gives_marginals_and_rank_correlation(rho: float) -> None:
    n = 100_000
    prompt, output = Copula(TABLE, OTHER, rho).sample(np.random.default_rng(3), n)
    expected = 6 / math.pi * math.asin(rho / 2)
    assert stats.spearmanr(prompt, output).statistic == pytest.approx(expected, abs=4 / math.sqrt(n))
    assert stats.ks_2samp(prompt, TABLE.quantile(U)).statistic < 0.008
    assert stats.ks_2samp(output, OTHER.quantile(U)).statistic < 0.008


def test_copula_at_its_ends_orders_both_lengths() -> None:
    prompt, output = Copula(TABLE, TABLE, 1.0).sample(np.random.default_rng(3), 1000)
    np.testing.assert_array_equal(prompt, output)
    prompt, output = Copula(TABLE, TABLE, -1.0).sample(np.random.default_rng(3), 1000)
    assert (np.diff(output[np.lexsort((-output, prompt))]) <= 0).all()


def test_independent_lengths_do_not_correlate() -> None:
    prompt, output = Independent(TABLE, OTHER).sample(np.random.default_rng(3), 100_000)
    assert abs(stats.spearmanr(prompt, output).statistic) < 4 / math.sqrt(100_000)


@pytest.mark.parametrize("model", [Independent(TABLE, OTHER), Copula(TABLE, OTHER, 0.5), Fixed(3, 4)])
@given(cut=st.integers(0, 300))
def test_drawing_in_parts_changes_nothing(model: LengthModel, cut: int) -> None:
    whole = model.sample(np.random.default_rng(5), 300)
    rng = np.random.default_rng(5)
    parts = model.sample(rng, cut), model.sample(rng, 300 - cut)
    for i in range(2):
        np.testing.assert_array_equal(whole[i], np.concatenate([part[i] for part in parts]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_quantiles_never_fall_and_are_at_least_one(u: list[float]) -> None:
    marginals: tuple[Marginal, ...] = (TABLE, OTHER, LogNormal(median=1, sigma=3.0), FixedLength(1))
    for marginal in marginals:
        lengths = marginal.quantile(np.sort(u))
        assert lengths.dtype == np.int64
        assert lengths.min() >= 1
        assert (np.diff(lengths) >= 0).all()


def test_table_lengths_do_not_import_scipy() -> None:
    code = (
        "import sys, numpy as np, sim.workload as w;"
        "t = w.EmpiricalQuantiles([(0, 1), (1, 9)]);"
        "w.Copula(t, t, 0.5).sample(np.random.default_rng(0), 10);"
        "assert not [m for m in sys.modules if m.startswith('scipy')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: FixedLength(0), "workload.lengths.tokens"),
    (lambda: FixedLength(1.5), "workload.lengths.tokens"),  # type: ignore[arg-type]
    (lambda: Fixed(-1, 1), "workload.lengths.prompt"),
    (lambda: Fixed(1, True), "workload.lengths.output"),
    (lambda: Fixed(1, "2"), "workload.lengths.output"),  # type: ignore[arg-type]
    (lambda: LogNormal(), "workload.lengths"),
    (lambda: LogNormal(median=10), "workload.lengths"),
    (lambda: LogNormal(median=10, sigma=1, mean=12), "workload.lengths"),
    (lambda: LogNormal(mean=10, p99=100), "workload.lengths"),
    (lambda: LogNormal(median=math.nan, sigma=1), "workload.lengths.median"),
    (lambda: LogNormal(median=10, sigma=-1), "workload.lengths.sigma"),
    (lambda: LogNormal(median=10, mean=9), "workload.lengths.mean"),
    (lambda: LogNormal(median=10, p99=9), "workload.lengths.p99"),
    (lambda: LogNormal(median=10, sigma=1, minimum=0), "workload.lengths.minimum"),
    (lambda: LogNormal(median=10, sigma=1, minimum=9, maximum=8), "workload.lengths.maximum"),
    (lambda: EmpiricalQuantiles([]), "workload.lengths.table"),
    (lambda: EmpiricalQuantiles("0 1, 1 x"), "workload.lengths.table"),
    (lambda: EmpiricalQuantiles("0 1, 1"), "workload.lengths.table"),
    (lambda: EmpiricalQuantiles([(0.1, 1), (1, 2)]), "workload.lengths.table"),
    (lambda: EmpiricalQuantiles([(0, 1), (0.9, 2)]), "workload.lengths.table"),
    (lambda: EmpiricalQuantiles([(0, 0), (1, 2)]), "workload.lengths.table"),
    (lambda: EmpiricalQuantiles([(0, 1), (0.5, 9), (0.4, 9), (1, 9)]), "workload.lengths.table"),
    (lambda: EmpiricalQuantiles([(0, 5), (1, 4)]), "workload.lengths.table"),
    (lambda: EmpiricalQuantiles([(0, math.nan), (1, 4)]), "workload.lengths.table"),
    (lambda: EmpiricalQuantiles(3), "workload.lengths.table"),  # type: ignore[arg-type]
    (lambda: Independent(3, OTHER), "workload.lengths.prompt"),  # type: ignore[arg-type]
    (lambda: Copula(TABLE, None, 0.0), "workload.lengths.output"),  # type: ignore[arg-type]
    (lambda: Copula(TABLE, OTHER, 1.1), "workload.lengths.rho"),
    (lambda: Copula(TABLE, OTHER, math.nan), "workload.lengths.rho"),
]


@pytest.mark.parametrize(("make", "key"), BAD)
def test_bad_arguments_are_named(make: Callable[[], object], key: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.key == key
    assert "\n" not in str(caught.value)

"""The programs behind the numbers of docs/performance.md run; how fast is not asked here."""

from __future__ import annotations

import pytest

from tests.benchmarks import attribution, bench, cases


def test_shares_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    attribution.main(1, cases.synthetic(200, 4.0))
    assert capsys.readouterr().out.startswith("shares add ")


@pytest.mark.parametrize("name", ["LeastOutstanding", "LeastTokens", "PowerOfTwo", "Spillover", "MinCostSLO"])
def test_decisions_are_timed(name: str) -> None:
    found = cases.decisions(name, requests=50)
    assert found["requests"] == 50
    assert found["wall_s"] >= 0.0


def test_runs_commands_and_results_are_timed() -> None:
    runs = (cases.cascade(100), cases.simulate(2, cases.synthetic(100, 4.0, 2)), cases.results(False, 100))
    assert [found["requests"] for found in runs] == [100] * 3
    for found in (*runs, cases.whole_command()):
        assert found["wall_s"] > 0.0
    assert cases.simpy_rate(10, 10) > 0.0


def test_every_case_has_a_row_and_the_ratios_their_cases() -> None:
    row = {"requests": 10, "wall_s": 1.0, "requests_per_s": 10.0, "peak_rss_mb": 1.0}
    row |= {"simpy_timeouts_per_s": 1e5, "per_simpy_timeout": 1e-4}
    records = [{"name": name, **row} for name in cases.CASES]
    assert bench.table(records).count("\n") >= len(records)
    assert "against 8 replicas: 1.00" in bench.ratios(records)

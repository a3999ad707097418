"""`hybridfleet breakeven`: numbers from a small run, their relations, files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scenarios.command import run
from tests.scenarios.records import one_line

SMALL = (
    "breakeven", "model=llama_3_2_1b", "xpu=l4", "api=together_llama_3_1_8b", "seeds=1", "inference.requests=60",
    "inference.prompt=300", "inference.output=30", "tp=1", "engine.max_num_seqs=8",
)  # fmt: skip


def test_numbers_follow_from_capacity_and_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "be"
    prices = ("rent.usd_per_xpu_hour=1", "own.purchase_usd_per_xpu=8760", "own.discount_rate=0", "own.lifetime_years=1")
    bare = ("own.colo_usd_per_kw_month=0", "own.electricity_usd_per_kwh=0")
    done = run([*SMALL, *prices, *bare, "--json", f"out={out}"], capsys)
    assert done.status == 0, done.err
    found = json.loads(done.out)
    day = found["replica"]["tokens_per_day"]["mean"]
    assert day == pytest.approx(86400.0 * 330.0 * found["replica"]["requests_per_s"][0])
    rent, own = found["break_even"][:2]
    # one USD an hour either way; the API's price is the same in and out
    for row in (rent, own):
        assert row["from_tokens_per_day"] == pytest.approx(24.0 / 0.18e-6)
        assert row["low"] == pytest.approx(0.75 * 24.0 / 0.18e-6)
        assert row["high"] == pytest.approx(1.25 * 24.0 / 0.18e-6)
    assert found["usd_per_mtok"]["rent"] == pytest.approx(24.0 / day * 1e6)
    assert found["inputs"]["spread"]["kind"] == "assumed"
    assert sorted(path.name for path in out.iterdir()) == [
        "breakeven.csv", "breakeven.json", "breakeven.png", "breakeven.svg",
    ]  # fmt: skip


def test_by_a_plan_rent_costs_less_than_all_day(capsys: pytest.CaptureFixture[str]) -> None:
    done = run([*SMALL, "profile=diurnal"], capsys)
    assert done.status == 0, done.err
    assert "rent by a plan" in done.out
    assert "another model" in done.out


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("api=acme", ["api='acme'", "hybridfleet list apis"]),
        ("profile=[1,2]", ["profile=[1, 2]", "24 weights"]),
        ("profile=weekly", ["profile='weekly'", "flat | diurnal"]),
        ("spread=1.5", ["spread=1.5"]),
        ("cost=rent", ["cost='rent'", "rent.NAME"]),
        ("rent.plan=spot", ["plan"]),
        ("own.colour=red", ["colour='red'"]),
        ("cached=-1", ["cached=-1"]),
        ("seed=1", ["seed=1", "no such key"]),
    ],
)
def test_bad_values_are_named(change: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    key = change.partition("=")[0]
    one_line(run([*(each for each in SMALL if each.partition("=")[0] != key), change], capsys), *parts)


def test_an_accelerator_and_apis_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    one_line(run(["breakeven", "model=llama_3_2_1b", "api=together_llama_3_1_8b"], capsys), "xpu=None")
    one_line(run(["breakeven", "model=llama_3_2_1b", "xpu=l4"], capsys), "api=None")

"""The interactive premium: bounds order the modes, verdicts follow the numbers, and inputs move them as they must."""

from __future__ import annotations

import pytest

from tests.scenarios.command import run
from tests.scenarios.records import one_line
from tests.scenarios.test_reproduce import found, verdicts

#: One engine, short runs, nothing varied.
SMALL = ("mlperf_interactive", "replicas=1", "requests=600", "tried_requests=300", "batches=[[256,1024]]",
         "steps=6", "processes=1")  # fmt: skip
NOTHING = "uncertain={}"


def test_tighter_bounds_leave_less_and_claims_are_their_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    document = found(capsys, *SMALL, NOTHING)
    rate = {row["mode"]: row["here [tok/s]"] for row in document["tables"]["modes"]}
    assert 0.0 < rate["interactive"] < min(rate["server"], rate["offline"])
    ratios = {row["premium"]: row for row in document["tables"]["premium"]}
    assert ratios["interactive over server"]["here"] == pytest.approx(rate["server"] / rate["interactive"])
    assert ratios["interactive over offline"]["published"] == pytest.approx(27803.9 / 8840.42)
    dollars = {row["mode"]: row["USD / 1M tokens"] for row in document["tables"]["modes"]}
    assert dollars["interactive"] == pytest.approx(3.75 / 3600 / rate["interactive"] * 1e6)
    assert set(document["tables"]) == {"modes", "latency", "premium", "settings"}


def test_times_at_the_rates_of_the_logs_rise_with_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    log = '{"rate":%g,"ttft_mean":1,"ttft_p99":1,"tpot_mean":1,"tpot_p99":1}'
    rates = f'logs={{"server":{log % 6},"interactive":{log % 0.5}}}'
    rows = found(capsys, *SMALL, NOTHING, rates)["tables"]["latency"]
    here = {(row["mode"], row["time"]): row["here [ms]"] for row in rows}
    assert here["server", "tpot_mean"] > here["interactive", "tpot_mean"]
    assert here["server", "ttft_p99"] > here["server", "ttft_mean"]
    assert all(row["log [ms]"] == 1000.0 for row in rows)


def test_the_verdict_follows_what_was_published_and_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    first = found(capsys, *SMALL, NOTHING)
    here = {row["mode"]: row["here [tok/s]"] for row in first["tables"]["modes"]}
    same = [f"published.{mode}={value}" for mode, value in here.items()]
    assert verdicts(found(capsys, *SMALL, NOTHING, *same))[1:] == ["holds"] * 4
    reverse = [f"published.interactive={here['server'] * 2}", "published.server=1", "published.offline=1"]
    assert verdicts(found(capsys, *SMALL, NOTHING, *reverse))[1:3] == ["does not hold"] * 2
    # equal bounds cost nothing, so there is no premium to find
    equal = found(capsys, *SMALL, NOTHING, "interactive=mlperf_llama2_70b")
    assert equal["tables"]["premium"][0]["here"] == pytest.approx(1.0)
    assert verdicts(equal)[1] == "does not hold"


def test_a_looser_bound_lowers_the_premium(capsys: pytest.CaptureFixture[str]) -> None:
    document = found(capsys, *SMALL, 'uncertain={"interactive_tpot_s":[0.03,0.08]}')
    (row,) = document["tables"]["sensitivity"]
    assert row["server, low"] > row["server, high"] >= 1.0
    assert row["offline, low"] > row["offline, high"]
    assert "of 2 ends" in document["claims"][1]["evidence"]


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("batches=[]", "batches"),
        ("batches=[[512,256]]", "batches[0]"),
        ("share=1.5", "share"),
        ("server=no_such", "server"),
        ("output.p99=1", "output.p99"),
        ("published.server=0", "published.server"),
        ("uncertain.prompt=[1]", "uncertain.prompt"),
        ("precision=fp3", "precision"),
    ],
)
def test_bad_input_is_one_line(setting: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    others = [each for each in SMALL if each.split("=")[0] != setting.split("=")[0]]
    done = run(["reproduce", *others, setting, "--json"], capsys)
    one_line(done, f"{key}=")

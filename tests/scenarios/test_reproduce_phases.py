"""Split phases: searches find what they should, clusters use up their budget, and verdicts follow the numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scenarios.schema import Section
from scenarios.studies import phase_split_study as phase_split
from scenarios.studies.capacity import around
from scenarios.studies.phase_clusters import Cluster, Machines
from sim.hardware import catalogue
from tests.scenarios.command import run
from tests.scenarios.records import one_line
from tests.scenarios.test_reproduce import found, verdicts

SMALL = ("splitwise_2024", "machines=2", "requests=60", "resolution=0.25", 'workloads=["azure_conv_2023"]',
         "prompt_shares=[0.5]", "uncertain={}", "processes=1")  # fmt: skip


def study(**changes: Any) -> phase_split.Study:
    values = catalogue.load_entry("study", "splitwise_2024").values
    return phase_split.read(Section({**values, **changes}, ""), ())


@pytest.mark.parametrize("limit", [0.03, 1.0, 7.3, 900.0])
def test_a_search_from_anywhere_ends_just_below_the_limit(limit: float) -> None:
    rate = around(lambda rate: rate <= limit, 4.0, 0.02)
    assert rate <= limit < rate * 1.02
    assert around(lambda rate: False, 4.0, 0.02) == 0.0


def test_clusters_use_up_their_budget_and_no_more() -> None:
    asked = study()
    for budget in (phase_split.POWER, phase_split.COST):
        for design, clusters in asked.designs(budget).items():
            for cluster in clusters:
                best = asked.best(cluster, 1.0)
                whole, used, least = (
                    (asked.count * asked.new.watts, best.watts, asked.old.watts)
                    if budget == phase_split.POWER
                    else (asked.count * asked.new.usd, best.usd, asked.old.usd)
                )
                assert whole - max(least, asked.new.watts * asked.cap) < used <= whole * (1 + 1e-9), design
                assert all(part.count >= 1 for part in cluster.parts)
    assert asked.designs(phase_split.POWER)[phase_split.BASE_OLD] == [Cluster(Machines("a100_sxm_80gb", 14))]


def test_gains_are_ratios_of_the_rates_and_verdicts_follow(capsys: pytest.CaptureFixture[str]) -> None:
    document = found(capsys, *SMALL)
    rate = {row["design"]: row["requests/s"] for row in document["tables"]["equal_power"]}
    assert all(value > 0.0 for value in rate.values())
    assert rate["new, both phases"] / 2 > rate["old, both phases"] / 3  # a new machine serves more than an old one
    gains = [rate["old + old"] / rate["old, both phases"], rate["new + new"] / rate["new, both phases"]]
    near = [abs(gain / 2.35 - 1.0) <= 0.25 for gain in gains]
    expected = "holds" if all(near) else "holds in part" if max(gains) > 1.05 else "does not hold"
    assert verdicts(document)[0] == expected
    settings = ["within=0.9", f"published.equal_both={max(gains)}", "published.throughput=0.01", "published.cost=1"]
    assert verdicts(found(capsys, *SMALL, *settings))[:2] == ["holds", "holds"]


def test_looser_bounds_let_the_same_machines_serve_more() -> None:
    asked = study(machines=2, requests=120, workloads=["azure_conv_2023"], uncertain={})
    (bench,) = asked.benches.values()
    cluster, alone = Cluster(Machines("h100_sxm", 1), Machines("h100_sxm", 1)), bench.alone()
    rates = [rate for rate in (0.1, 1.0, 4.0, 16.0, 200.0) if bench.holds(cluster, rate, alone)]
    assert rates[:1] == [0.1]
    assert 200.0 not in rates
    impossible = replace(bench, slowdowns=bench.slowdowns.scaled(0.1))
    assert not impossible.holds(cluster, 0.1, alone)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("workloads=[]", "workloads"),
        ('workloads=["no_such"]', "workloads"),
        ("prompt_shares=[1]", "prompt_shares[0]"),
        ("slowdowns.ttft=[2,3]", "slowdowns.ttft"),
        ("cap=1", "cap"),
        ("machines=1", "machines"),
        ("new=apple_m2", "new"),
        ("kv_link=no_such", "kv_link"),
        ("stack=no_such", "stack"),
    ],
)
def test_bad_input_is_one_line(setting: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    others = [each for each in SMALL if each.split("=")[0] != setting.split("=")[0]]
    done = run(["reproduce", *others, setting, "--json"], capsys)
    one_line(done, f"{key}=")

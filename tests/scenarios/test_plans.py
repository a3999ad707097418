"""Plans of replicas from configuration: by the clock and by a list; a run; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.fleet.plan import ClockPlan, LoadPlan, StepPlan
from tests.scenarios.command import QUICK, run
from tests.scenarios.records import one_line
from tests.scenarios.test_build import built

HOURS = ",".join(["1"] * 12 + ["2"] * 12)


def test_all_forms_build() -> None:
    by_clock = built(
        "fleet=single", "fleet.replicas=2", f"fleet.plan={{hours:[{HOURS}],zone:UTC}}", "start_utc=2024-06-03"
    )
    (pool,) = by_clock.fleet.pools
    assert isinstance(pool.plan, ClockPlan)
    assert (pool.plan.at(0.0), pool.plan.at(13 * 3600.0)) == (1.0, 2.0)
    (pool,) = built("fleet=single", "fleet.replicas=2", "fleet.plan=[[0,1],[60,2]]", "fleet.boot_s=30").fleet.pools
    assert isinstance(pool.plan, StepPlan)
    assert (pool.plan.at(59.0), pool.plan.at(60.0), pool.boot_s) == (1.0, 2.0, 30.0)
    (pool,) = built(
        "fleet=single", "fleet.replicas=2", "fleet.plan={outstanding_per_replica: 8, every_s: 20}"
    ).fleet.pools
    assert isinstance(pool.plan, LoadPlan)
    assert (pool.plan.least, pool.plan.begin(lambda: 0).next_change(20.0)) == (1, 40.0)


def test_a_run_pays_rent_for_what_the_plan_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    plan = ("fleet.replicas=3", "fleet.plan=[[0,1],[100,3],[200,1]]", "horizon_s=300")
    done = run(["run", *QUICK, *plan, f"out={out}"], capsys)
    assert done.status == 0, done.err
    pool = json.loads((out / "summary.json").read_text())["by_pool"]["single"]
    assert pool["provisioned_xpu_s"] == pytest.approx(500.0)
    assert pool["cost_usd"] == pytest.approx(500.0 / 3600.0 * 2.69)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("fleet.plan=[[0,2]]", ["fleet.plan=2", "replicas (1)"]),
        ("fleet.plan=2", ["fleet.plan=2", "hours"]),
        ("fleet.plan=[[0,1],[9]]", ["fleet.plan[1]=[9]"]),
        (f"fleet.plan={{hours:[{HOURS}],zone:UTC}}", ["fleet.plan.start_utc=None"]),
        (
            f"fleet.plan={{hours:[{HOURS}],zone:UTC,when:1,start_utc:'2024-06-03'}}",
            ["fleet.plan.when=1", "no such key"],
        ),
        ("fleet.plan={hours:[1,2],zone:UTC,start_utc:'2024-06-03'}", ["fleet.plan.hours", "24 values"]),
        ("fleet.plan={least:1}", ["fleet.plan.outstanding_per_replica"]),
        ("fleet.plan={outstanding_per_replica:8,most:4}", ["fleet.plan.most=4", "no such key"]),
        ("fleet.plan={outstanding_per_replica:none}", ["fleet.plan.outstanding_per_replica='none'"]),
        ("fleet.plan={outstanding_per_replica:8,least:2}", ["fleet.plan=2", "replicas (1)"]),
        ("fleet.plan.least=2", ["fleet.plan.least='2'", "outstanding_per_replica"]),
        ("fleet.boot_s=-1", ["fleet.boot_s=-1"]),
    ],
)
def test_bad_plans_are_named(override: str, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    one_line(run(["run", *QUICK, override], capsys), *parts)

"""Power budgets of sites: what spans draw together never passes them, whatever the budget does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim import Constant, Fleet, Result, Site
from sim.accounting import LoadPue
from sim.accounting.on_site import OnSite
from sim.accounting.signal import Sum
from sim.accounting.solar import ClearSky, Solar
from sim.errors import InputError
from sim.fleet.power_budget import LEVELS, PowerBudget, Share, budgeted
from sim.hardware import catalogue
from sim.hardware.collectives import Interconnect
from tests.sim.conftest import StepSignal, pool, simulate

LAW = catalogue.clock_law()
GRID = StepSignal(0.11, [300.0, 0.0, 500.0])
ROWS = [(0.02 * i, 60 + 7 * i, 20 + 5 * (i % 7)) for i in range(60)]
FREE_KW = 2 * (30.0 + 300.0) / 1e3 + (30.0 + 250.0) / 1e3
STEPPING = StepSignal(0.13, [0.75, 0.4, 0.55])


def chip(**changes):
    made = pool(**changes).xpu
    return catalogue.dataclasses.replace(made, memory_type="HBM2e")


def site(budget, pue=1.0, intensity=GRID, **changes):
    pools = (
        pool("a", xpu=chip(), replicas=2, **changes),
        pool("b", xpu=chip(), power_cap_w=250.0, clock_law=LAW, **changes),
    )
    limit = None if budget is None else PowerBudget(budget, LAW)
    return Site("site", "edge", pools, intensity, pue, power_budget=limit)


class Alternate:
    """Requests to both pools in turn."""

    balancer = None

    def choose(self, request, fleet):
        return fleet.pools[request.id % 2]


def served(where: Site, **settings) -> Result:
    return simulate(Fleet((where,)), ROWS, Alternate(), keep_spans=True, **settings)


def facility_w(result: Result, where: Site):
    """Instants at which the power of a site changes, and its facility power from then on: spans, and idle replicas."""
    span, changes, edges = result.spans, [], {0.0}
    replicas = sum(each.replicas for each in where.pools)
    for start, k, a, b, dyn_j in zip(*(span[name] for name in ("t0_s", "steps", "a_s", "b_s", "dyn_j"))):
        seconds = k * a + b * k * (k - 1) / 2
        changes += [(start, 80.0 - 40.0 + dyn_j / seconds), (start + seconds, -(80.0 - 40.0 + dyn_j / seconds))]
    changes.sort()
    edges |= {t for t, _ in changes}
    for signal in (where.pue, where.power_budget.kw):
        t = getattr(signal, "next_change", lambda t: math.inf)(0.0)
        while t < result.end_s:
            edges.add(t)
            t = signal.next_change(t)
    times, it_w, at = sorted(edges), [], 0
    level = replicas * (40.0 + 30.0)
    for t in times:
        while at < len(changes) and changes[at][0] <= t + 1e-12:
            level, at = level + changes[at][1], at + 1
        it_w.append(level)
    return np.array(times), np.array(it_w)


def check(result: Result, where: Site) -> float:
    """Every instant is within the budget; returns the highest share of it that was drawn."""
    times, it_w = facility_w(result, where)
    most = 0.0
    for t, watts, following in zip(times, it_w, [*times[1:], result.end_s]):
        if following - t < 1e-9:  # two replicas' spans that meet, to rounding
            continue
        middle = 0.5 * (t + following)
        if isinstance(where.pue, LoadPue):
            drawn = where.pue.slope * watts + where.pue.fixed_w(3 * 330.0)
        else:
            drawn = watts * (where.pue if isinstance(where.pue, float) else where.pue.at(middle))
        most = max(most, drawn / 1e3 / where.power_budget.kw.at(middle))
    return most


@pytest.mark.parametrize("budget", [Constant(0.5), STEPPING])
@pytest.mark.parametrize("pue", [1.0, 1.2, StepSignal(0.09, [1.0, 1.3]), LoadPue(1.2, 0.5)])
def test_no_instant_draws_more_than_the_budget(budget, pue):
    factor = 1.0 if pue == 1.0 else 1.3
    scaled = Constant(0.5 * factor) if isinstance(budget, Constant) else StepSignal(
        0.13, [factor * kw for kw in STEPPING.values]
    )  # fmt: skip
    where = site(scaled, pue)
    most = check(served(where), where)
    assert 0.75 < most <= 1.0 + 1e-9
    assert check(served(site(None, pue)), where) > 1.05  # which it would draw without


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": {"kv_blocks": 40, "max_num_seqs": 6}},
        {"engine": {"kv_blocks": 40, "swap_bytes": 1e6, "swap_bytes_per_s": 1e7}},
        {"engine": {"speculative_tokens": 2, "acceptance_rate": 0.5}},
        {"engine": {"async_scheduling": True, "padding": (2, 4, 8)}},
        {"boot_s": 0.2},
    ],
)
def test_a_budget_that_varies_is_kept_by_every_kind_of_engine(changes):
    where = site(STEPPING, **changes)
    result = served(where)
    assert (result.requests["status"] == 0).all()
    if "boot_s" not in changes:  # booting is not in the spans
        assert check(result, where) <= 1.0 + 1e-9
    totals = result.pools[0]
    shares = result.requests["energy_j"] + result.requests["energy_wasted_j"]
    mine = result.requests["pool"] == 0
    parts = totals.facility_energy_j
    assert shares[mine].sum() == pytest.approx(parts["active"] + parts["wasted"], rel=1e-9)
    grams = totals.carbon_operational_g
    own = result.requests["carbon_operational_g"][mine].sum()
    assert own == pytest.approx(grams["active"] + grams["wasted"], rel=1e-9)


def test_prefill_and_decode_replicas_keep_it_too():
    link = Interconnect("link", 1e8, 1e-5, "test")
    halves = (pool("a", xpu=chip(), replicas=3, prefill_replicas=1, kv_link=link),)
    where = Site("site", "edge", halves, GRID, power_budget=PowerBudget(STEPPING, LAW))
    result = simulate(Fleet((where,)), ROWS, keep_spans=True)
    assert (result.requests["status"] == 0).all()
    assert 0.75 < check(result, where) <= 1.0 + 1e-9


def test_a_limit_that_is_looked_at_often_but_stays_changes_nothing():
    kw = 3 * (30.0 + 80.0) / 1e3 + (2 * 220.0 + 170.0) * 40 / LEVELS / 1e3 + 1e-9
    fixed, looked_at = served(site(Constant(kw))), served(site(StepSignal(0.05, [kw, kw])))
    for name in ("ttft_s", "e2e_s", "energy_j", "carbon_operational_g"):
        assert looked_at.requests[name] == pytest.approx(fixed.requests[name], rel=1e-6)
    assert len(looked_at.spans["t0_s"]) > len(fixed.spans["t0_s"])


def test_a_budget_beyond_what_the_site_can_draw_changes_no_byte():
    plain, loose = served(site(None)), served(site(Constant(FREE_KW)))
    for name, values in plain.requests.items():
        assert values.tobytes() == loose.requests[name].tobytes(), name


def test_less_power_is_slower_and_shared_by_range():
    where = site(Constant(0.62))
    share = Share(where).at(0.0)
    caps = [each.power_cap_w for each in budgeted(where, math.inf)]
    assert caps == pytest.approx([80.0 + share * 220.0, 80.0 + share * 170.0])
    assert 3 * 30.0 + 2 * caps[0] + caps[1] == pytest.approx(620.0)
    free, tight = served(site(None)), served(where)
    assert tight.requests["e2e_s"].mean() > 1.02 * free.requests["e2e_s"].mean()
    assert tight.requests["energy_j"].sum() < free.requests["energy_j"].sum()


def test_a_budget_may_follow_the_sun_and_the_settlement_reports_it():
    sky = ClearSky(0.5, 0.0, 0.0, "2024-03-20T08:00", 0.8)
    pools = (pool("a", xpu=chip(), replicas=2),)
    where = Site(
        "s", "edge", pools, GRID, on_site=OnSite(Solar(sky), step_s=60.0),
        power_budget=PowerBudget(Sum(Constant(0.25), sky), LAW),
    )  # fmt: skip
    rows = [(20.0 * i, 60, 200) for i in range(60)]
    result = simulate(Fleet((where,)), rows, keep_spans=True, horizon_s=1300.0)
    (found,) = result.sites
    assert found.peak_kw["least_below_budget"] >= -1e-9
    assert found.steps["budget_kw"][-1] > found.steps["budget_kw"][0] > 0.25
    assert found.peak_kw["import"] <= 0.25 + 1e-9


@pytest.mark.parametrize(
    ("budget", "pue", "changes", "key"),
    [
        (Constant(0.33), 1.0, {}, "sites.site.power_budget"),
        (StepSignal(0.2, [0.6, 0.3]), 1.0, {}, "sites.site.power_budget"),
        (Constant(0.4), StepSignal(0.3, [1.0, 1.3]), {}, "sites.site.power_budget"),
    ],
)
def test_a_budget_below_what_is_drawn_at_any_clock_is_refused(budget, pue, changes, key):
    with pytest.raises(InputError) as caught:
        served(site(budget, pue, **changes), horizon_s=5.0)
    assert caught.value.key == key
    assert "kW" in caught.value.accepted
    with pytest.raises(InputError):  # also where no horizon lets it be seen in advance
        served(site(budget, pue, **changes))

"""Whole runs on random fleets keep the books: no request, token, block, joule, gram, dollar or second is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from sim import Constant
from sim.accounting.ledger import rates_of
from sim.results import STATUSES
from sim.serving.engine import Engine
from sim.units import JOULES_PER_KWH
from tests.sim.conftest import Case, cases

REL = 1e-9
COMPLETED, REJECTED, IN_FLIGHT = (STATUSES.index(name) for name in ("completed", "rejected", "in_flight"))

runs = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def sums(requests: dict[str, Any], name: str, mine: Any) -> float:
    return float(requests[name][mine].sum())


@runs
@given(cases())
def test_every_request_is_accounted_for_once(case: Case) -> None:
    result, horizon = case.result, case.settings["horizon_s"] or np.inf
    coming = [row for row in case.rows if row[0] < horizon]
    requests = result.requests
    assert case.spy.arrived == len(coming)
    assert requests["request_id"].tolist() == list(range(len(coming)))
    assert requests["arrival_s"].tolist() == [row[0] for row in coming]
    assert requests["prompt_tokens"].tolist() == [row[1] for row in coming]
    count = np.bincount(requests["status"], minlength=len(STATUSES))
    assert count[COMPLETED] + count[REJECTED] + count[IN_FLIGHT] == len(coming)
    assert not (case.drained and count[IN_FLIGHT])
    warmup = case.settings["warmup_s"]
    assert requests["counted"].tolist() == [warmup <= row[0] < horizon for row in coming]
    for live in case.spy.pools:
        mine = requests["pool"] == live.index
        assert live.outstanding == np.count_nonzero(mine & (requests["status"] == IN_FLIGHT))
    rejected = requests["status"] == REJECTED
    assert ((requests["pool"] == -1) == rejected).all()


@runs
@given(cases())
def test_completed_requests_got_exactly_their_tokens(case: Case) -> None:
    result = case.result
    requests, status = result.requests, result.requests["status"]
    asked = np.array([row[2] for row in case.rows])[: len(result)]
    given_ = requests["output_tokens"]
    assert (given_[status == COMPLETED] == asked[status == COMPLETED]).all()
    assert (given_[status == REJECTED] == 0).all()
    flying = status == IN_FLIGHT
    assert ((given_[flying] >= 0) & (given_[flying] < asked[flying])).all()
    for live, totals in zip(case.spy.pools, result.pools):
        mine = requests["pool"] == live.index
        assert totals.output_tokens == given_[mine].sum()
        timeline = result.timeline["output_tokens"][result.timeline["pool"] == live.index]
        assert timeline.sum() == pytest.approx(totals.output_tokens, rel=REL, abs=1e-6)
        for slo_class in (0, 1):
            of_class = given_[mine & (requests["slo_class"] == slo_class)]
            gaps = result.gaps[live.index, slo_class]
            assert gaps.count.sum() == np.maximum(of_class - 1, 0).sum()


@contextmanager
def watched(after: Callable[[Engine], None]) -> Iterator[None]:
    """Look at an engine in the last step of every span, when it holds most."""
    commit = Engine.commit

    def look(engine: Engine, end: float) -> None:
        after(engine)
        commit(engine, end)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "commit", look)
        yield


@runs
@given(cases())
def test_memory_is_never_overdrawn_and_empty_when_idle(case: Case) -> None:
    def check(engine: Engine) -> None:
        block, k = engine.block_size, engine._k
        chunks = dict(engine.chunks)
        tokens = [
            seq.offset + engine.j + k - 1 if seq.decoding else seq.done + chunks.get(seq, 0) * k
            for seq in engine.running
        ]
        used = sum(-(-held // block) for held in tokens)
        assert used <= engine.blocks
        assert len(engine.running) <= engine.max_seqs
        if not engine.options.whole_prompts:  # a prompt that is never split may exceed the budget, alone
            assert engine.n + sum(chunks.values()) <= engine.budget
        assert sum(seq.decoding for seq in engine.running) == engine.n
        assert sum(seq.offset + engine.j for seq in engine.running if seq.decoding) == engine.context
        if engine.env.now <= engine._wake_at + 1e-9:
            seen.append(engine.used_blocks())
            assert seen[-1] <= engine.blocks

    seen: list[int] = []
    with watched(check):
        result = case.result
    assert seen or (result.requests["status"] != COMPLETED).all()
    if case.drained:
        for live in case.spy.pools:
            assert live.waiting == live.outstanding == live.outstanding_tokens == live.output_tokens == 0
            assert live.kv_use == 0.0
            assert not any(live.loads)
            assert not any(engine.running or engine.waiting or engine.n or engine.context for engine in live.engines)


def metered(case: Case, index: int) -> dict[str, float]:
    """What the step clock says that a pool's steps took: seconds, joules and grams after PUE, highest power of xPUs."""
    live, spans = case.spy.pools[index], case.result.spans
    assert spans is not None
    rates, signal = rates_of(live), live.site.intensity
    mine = spans["pool"] == index
    total = {"s": 0.0, "j": 0.0, "g": 0.0, "gs": 0.0, "most_w": 0.0}
    for start, k, a, b, dyn_j in zip(*(spans[name][mine] for name in ("t0_s", "steps", "a_s", "b_s", "dyn_j"))):
        seconds = k * a + b * k * (k - 1) / 2
        joules = rates.pue * (rates.active_w * seconds + dyn_j)
        mean = signal.integral(start, start + seconds) / seconds
        total["s"] += seconds
        total["j"] += joules
        total["g"] += joules * mean / JOULES_PER_KWH
        total["gs"] += seconds * mean
        total["most_w"] = max(total["most_w"], live.timing.static_w + dyn_j / seconds)
    return total


@runs
@given(cases(drain=True))
def test_energy_is_conserved(case: Case) -> None:
    result = case.result
    for live, totals in zip(case.spy.pools, result.pools):
        rates, mine = rates_of(live), result.requests["pool"] == live.index
        meter, parts = metered(case, live.index), totals.facility_energy_j
        assert meter["most_w"] <= live.spec.xpu.tdp_w * live.spec.tp * (1 + REL)
        assert totals.busy_s == pytest.approx(meter["s"], rel=REL)
        assert parts["active"] + parts["wasted"] == pytest.approx(meter["j"], rel=REL)
        assert sums(result.requests, "energy_j", mine) == pytest.approx(parts["active"], rel=REL)
        assert sums(result.requests, "energy_wasted_j", mine) == pytest.approx(parts["wasted"], rel=REL, abs=1e-12)
        assert sums(result.requests, "energy_network_j", mine) == pytest.approx(parts["network"], rel=REL)
        assert sums(result.requests, "xpu_s", mine) == pytest.approx(meter["s"] * live.spec.tp, rel=REL)
        assert totals.busy_s + totals.idle_s + totals.boot_s == pytest.approx(live.replicas * result.end_s, rel=REL)
        assert parts["boot"] == pytest.approx(rates.pue * rates.active_w * totals.boot_s, rel=REL)
        assert parts["idle"] == pytest.approx(rates.pue * rates.idle_w * totals.idle_s, rel=REL)
        if meter["s"]:
            spread = sums(result.requests, "energy_provisioned_j", mine)
            assert spread == pytest.approx(parts["active"] + parts["idle"] + parts["boot"], rel=REL)
        drawn = sum(parts.values()) - parts["network"]
        timeline = result.timeline["energy_j"][result.timeline["pool"] == live.index]
        assert timeline.sum() == pytest.approx(drawn, rel=REL)
        assert sum(totals.it_energy_j.values()) == pytest.approx(drawn / rates.pue + parts["network"], rel=REL)


@runs
@given(cases(drain=True))
def test_carbon_is_conserved(case: Case) -> None:
    result = case.result
    for live, totals in zip(case.spy.pools, result.pools):
        rates, signal, mine = rates_of(live), live.site.intensity, result.requests["pool"] == live.index
        meter, parts = metered(case, live.index), totals.carbon_operational_g
        assert parts["active"] + parts["wasted"] == pytest.approx(meter["g"], rel=REL, abs=1e-15)
        assert sums(result.requests, "carbon_operational_g", mine) == pytest.approx(meter["g"], rel=REL, abs=1e-15)
        whole = live.replicas * signal.integral(0.0, result.end_s)
        boot = live.replicas * signal.integral(0.0, min(live.spec.boot_s, result.end_s))
        idle = rates.pue * rates.idle_w * (whole - boot - meter["gs"]) / JOULES_PER_KWH
        assert parts["idle"] == pytest.approx(idle, rel=REL, abs=1e-12)
        assert parts["boot"] == pytest.approx(rates.pue * rates.active_w * boot / JOULES_PER_KWH, rel=REL)
        drawn = sum(parts.values()) - parts["network"]
        if meter["s"]:
            spread = sums(result.requests, "carbon_operational_provisioned_g", mine)
            assert spread == pytest.approx(drawn, rel=REL)
        if isinstance(signal, Constant):
            timeline = result.timeline["carbon_g"][result.timeline["pool"] == live.index]
            assert timeline.sum() == pytest.approx(drawn, rel=REL)
        if totals.carbon_embodied_g is not None:
            per_s = live.spec.tp * (100e3 + 40e3 * (live.spec.host is not None)) / 1e6
            assert sum(totals.carbon_embodied_g.values()) == pytest.approx(
                per_s * live.replicas * result.end_s, rel=REL
            )


@runs
@given(cases(drain=True))
def test_cost_is_conserved(case: Case) -> None:
    result = case.result
    for live, totals in zip(case.spy.pools, result.pools):
        mine = result.requests["pool"] == live.index
        if live.spec.cost is None:
            assert totals.cost_usd is None
            assert np.isnan(result.requests["cost_usd"][mine]).all()
            continue
        rates, parts, meter = live.spec.cost.rates(), totals.cost_usd, metered(case, live.index)
        per_s = rates.usd_per_xpu_s * live.spec.tp
        drawn_j = sum(totals.facility_energy_j.values()) - totals.facility_energy_j["network"]
        whole = per_s * live.replicas * result.end_s + rates.usd_per_facility_j * drawn_j
        assert sum(parts.values()) == pytest.approx(whole, rel=REL)
        active = per_s * meter["s"] + rates.usd_per_facility_j * meter["j"]
        assert sums(result.requests, "cost_usd", mine) == pytest.approx(active, rel=REL)
        if meter["s"]:
            assert sums(result.requests, "cost_provisioned_usd", mine) == pytest.approx(whole, rel=REL)


@runs
@given(cases(drain=False))
def test_books_balance_at_a_horizon_that_cuts_steps(case: Case) -> None:
    result = case.result
    assert result.end_s == case.settings["horizon_s"]
    flying = result.requests["status"] == IN_FLIGHT
    assert (result.requests["energy_j"][flying] == 0.0).all()
    for live, totals in zip(case.spy.pools, result.pools):
        mine = result.requests["pool"] == live.index
        meter, parts, rates = metered(case, live.index), totals.facility_energy_j, rates_of(live)
        busy_j = parts["active"] + parts["wasted"]
        lost_s = totals.busy_s - meter["s"]  # steps cut short: in no span, and in no request's share
        lost_j = busy_j - meter["j"]
        shares = sums(result.requests, "energy_j", mine) + sums(result.requests, "energy_wasted_j", mine)
        assert shares == pytest.approx(meter["j"], rel=REL)
        assert sums(result.requests, "energy_j", mine) == pytest.approx(parts["active"], rel=REL, abs=1e-9)
        running = sum(bool(engine.running) for engine in live.engines)
        assert -1e-12 <= lost_s <= running * 0.5 + 1e-12  # no step of these pools takes longer
        least = rates.pue * rates.active_w * lost_s
        assert least - 1e-9 <= lost_j <= rates.pue * (live.spec.tp * live.spec.xpu.tdp_w + live.host_w) * lost_s + 1e-9
        assert totals.busy_s + totals.idle_s + totals.boot_s == pytest.approx(live.replicas * result.end_s, rel=REL)
        timeline = result.timeline["energy_j"][result.timeline["pool"] == live.index]
        assert timeline.sum() == pytest.approx(sum(parts.values()) - parts["network"], rel=REL)


@runs
@given(cases())
def test_component_times_add_up(case: Case) -> None:
    requests = case.result.requests
    done = requests["status"] == COMPLETED
    parts = [requests[name] for name in ("uplink_s", "queue_s", "prefill_s", "decode_s", "downlink_s")]
    for part in parts:
        assert (part[done] >= 0.0).all()
        assert np.isnan(part[~done]).all()
    total = sum(part[done] for part in parts)
    assert total == pytest.approx(requests["e2e_s"][done], rel=REL, abs=1e-12)
    ttft, tpot, e2e = (requests[name][done] for name in ("ttft_s", "tpot_s", "e2e_s"))
    steps = requests["output_tokens"][done] - 1
    assert (np.isnan(tpot) == (steps == 0)).all()
    assert ttft + steps * np.nan_to_num(tpot) == pytest.approx(e2e, rel=REL)
    longest, many = requests["itl_max_s"][done], steps > 0
    assert (np.isnan(longest) == (steps == 0)).all()
    assert (longest[many] >= tpot[many] * (1 - REL) - 1e-12).all()
    quality = requests["token_qoe"]
    assert ((quality >= 0.0) & (quality <= 1.0)).all()
    assert (quality[~done] == 0.0).all()
    assert not requests["slo_met"][~done].any()


@runs
@given(cases(drain=True))
def test_gaps_and_occupancy_integrate_to_the_requests_times(case: Case) -> None:
    result, requests = case.result, case.result.requests
    for live in case.spy.pools:
        mine = requests["pool"] == live.index
        samples = [result.gaps[live.index, slo_class] for slo_class in (0, 1)]
        whole = sum(float((sample.value_s * sample.count).sum()) for sample in samples)
        decoded = float(np.nansum((requests["e2e_s"] - requests["ttft_s"])[mine]))  # at the clients
        assert whole == pytest.approx(decoded, rel=REL, abs=1e-9)
        if not live.spec.engine.detokenize_s and not (live.link and live.link.outages):
            assert decoded == pytest.approx(sums(requests, "decode_s", mine), rel=REL, abs=1e-9)
        longest = [sample.value_s[-1] for sample in samples if len(sample.value_s)]
        if longest:
            assert max(longest) == pytest.approx(np.nanmax(requests["itl_max_s"][mine]), rel=REL)
        for sample in samples:
            assert (np.diff(sample.value_s) >= 0.0).all()
        timeline = {name: values[result.timeline["pool"] == live.index] for name, values in result.timeline.items()}
        waited = sums(requests, "queue_s", mine)
        assert (timeline["queue"] * timeline["bin_s"]).sum() == pytest.approx(waited, rel=REL, abs=1e-7)
        served = sums(requests, "prefill_s", mine) + sums(requests, "decode_s", mine)
        assert (timeline["running"] * timeline["bin_s"]).sum() == pytest.approx(served, rel=REL, abs=1e-7)
        assert timeline["arrivals"].sum() == np.count_nonzero(mine)
        assert (timeline["kv_use"] <= 1.0 + REL).all()
        if result.end_s:
            assert timeline["bin_s"].sum() == pytest.approx(result.end_s, rel=REL)

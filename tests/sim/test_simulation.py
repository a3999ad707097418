"""Scenarios small enough to compute by hand: every time, joule, gram and dollar written out from the chip's rates."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from sim import Constant, Fleet, InputError, Link, Progress, Result, Site, SLOClass, run
from sim.accounting.grid import HourlySignal
from sim.accounting.ledger import PARTS
from sim.results import REQUEST_COLUMNS, SPAN_COLUMNS, TIMELINE_COLUMNS
from sim.routing import EdgeOnly
from sim.units import JOULES_PER_KWH
from tests.sim.conftest import CHAT, First, ListWorkload, StepSignal, fleet_of, owned, pool, simulate, xpu

EXACT = 1e-12
PUE, GRID = 1.25, 300.0
STATIC_W, IDLE_W, HOST_W = 80.0, 40.0, 30.0
WEIGHTS = (1e6 - 64_000) * 2.0  # bytes that a step streams: all but the embedding table, in 16 bit
WEIGHTS_S = WEIGHTS / (0.8 * 5e8)
HEAD_FLOP = 2.0 * 1000 * 64  # output head, once a sequence
BODY_FLOP = 2.0 * (1e6 - 64_000) - HEAD_FLOP  # every token
PEAK = 2e11
KV_BYTES = 2 * 2 * 16 * 4 * 2.0  # K and V of 2 heads of 16 values in 4 layers, 2 bytes each
TAU = KV_BYTES / (0.6 * 5e8)
PAIR_FLOP = 4.0 * 4 * 4 * 16  # QK and PV, 4 layers of 4 heads of 16
RHO = PAIR_FLOP / (0.4 * PEAK)


def step_s(tokens: int, sequences: int, context: float = 0.0, pairs: float = 0.0) -> float:
    """Duration of one step [s]."""
    compute_s = (BODY_FLOP * tokens + HEAD_FLOP * sequences) / (0.5 * PEAK)
    return max(compute_s, WEIGHTS_S) + 1e-3 + 4 * 1e-4 + 2e-5 * sequences + TAU * context + RHO * pairs


def step_j(tokens: int, sequences: int, context: float = 0.0, pairs: float = 0.0) -> float:
    """Dynamic energy of one step [J]: 200 W at peak FLOP/s, 120 W at peak bandwidth."""
    flop = BODY_FLOP * tokens + HEAD_FLOP * sequences + PAIR_FLOP * (context + pairs)
    return 200.0 * flop / PEAK + 120.0 * (WEIGHTS + KV_BYTES * context) / 5e8


def facility_j(seconds: float, dynamic_j: float) -> float:
    return PUE * ((STATIC_W + HOST_W) * seconds + dynamic_j)


def triangle(n: int) -> float:
    return n * (n + 1) / 2


def lone(prompt: int, output: int) -> list[tuple[float, float]]:
    """(seconds, dynamic joules) of every step of one request that has a replica to itself."""
    steps = [(1 * prompt, 0.0, triangle(prompt))] + [(1, prompt + i, 0.0) for i in range(1, output)]
    return [(step_s(t, 1, s, p), step_j(t, 1, s, p)) for t, s, p in steps]


def one_site(**changes: Any) -> Fleet:
    site = {"intensity": changes.pop("intensity", Constant(GRID, "lca")), "pue": PUE}
    return fleet_of(pool(**changes), **site)


def only(result: Result, name: str, row: int = 0) -> float:
    return float(result.requests[name][row])


def test_one_request_on_an_idle_replica() -> None:
    result = simulate(one_site(cost=owned()), [(2.0, 40, 6)], keep_spans=True)
    steps = lone(40, 6)
    prefill_s, decode_s = steps[0][0], sum(s for s, _ in steps[1:])
    energy = facility_j(prefill_s + decode_s, sum(j for _, j in steps))
    assert only(result, "ttft_s") == pytest.approx(prefill_s, rel=EXACT)
    assert only(result, "tpot_s") == pytest.approx(decode_s / 5, rel=EXACT)
    assert only(result, "e2e_s") == pytest.approx(prefill_s + decode_s, rel=EXACT)
    assert only(result, "itl_max_s") == pytest.approx(steps[-1][0], rel=EXACT)
    assert only(result, "energy_j") == pytest.approx(energy, rel=EXACT)
    assert only(result, "energy_prefill_j") == pytest.approx(facility_j(*steps[0]), rel=EXACT)
    assert only(result, "energy_wasted_j") == 0.0
    assert only(result, "carbon_operational_g") == pytest.approx(energy * GRID / JOULES_PER_KWH, rel=EXACT)
    assert only(result, "carbon_embodied_g") == pytest.approx((prefill_s + decode_s) * 140e3 / 1e6, rel=EXACT)
    rates = owned().rates()
    usd = rates.usd_per_xpu_s * (prefill_s + decode_s) + rates.usd_per_facility_j * energy
    assert only(result, "cost_usd") == pytest.approx(usd, rel=EXACT)
    of_prompt = rates.usd_per_xpu_s * prefill_s + rates.usd_per_facility_j * facility_j(*steps[0])
    assert only(result, "cost_prefill_usd") == pytest.approx(of_prompt, rel=EXACT)
    assert only(result, "slo_met") == 1.0
    totals = result.pools[0]
    assert totals.facility_energy_j["idle"] == pytest.approx(PUE * (IDLE_W + HOST_W) * 2.0, rel=1e-11)
    assert result.end_s == pytest.approx(2.0 + prefill_s + decode_s, rel=EXACT)
    assert totals.steps == result.spans["steps"].sum() == 6
    assert result.gaps[0, 0].value_s == pytest.approx([s for s, _ in steps[1:]], rel=EXACT)


def test_coincident_arrivals_share_every_step_and_its_energy() -> None:
    result = simulate(one_site(), [(0.5, 30, 4), (0.5, 30, 4)])
    first = step_s(60, 2, 0.0, 2 * triangle(30))
    decode = [(step_s(2, 2, 2 * (30 + i)), step_j(2, 2, 2 * (30 + i))) for i in (1, 2, 3)]
    seconds = first + sum(s for s, _ in decode)
    whole = facility_j(seconds, step_j(60, 2, 0.0, 2 * triangle(30)) + sum(j for _, j in decode))
    for row in (0, 1):
        assert only(result, "ttft_s", row) == pytest.approx(first, rel=EXACT)
        assert only(result, "e2e_s", row) == pytest.approx(seconds, rel=EXACT)
        assert only(result, "energy_j", row) == pytest.approx(whole / 2, rel=EXACT)
        assert only(result, "xpu_s", row) == pytest.approx(seconds / 2, rel=EXACT)


def test_an_arrival_during_a_step_waits_for_its_end() -> None:
    alone = [s for s, _ in lone(30, 10)]
    arrival = sum(alone[:3]) + 0.4 * alone[3]
    result = simulate(one_site(), [(0.0, 30, 10), (arrival, 20, 1)])
    assert only(result, "queue_s", 1) == pytest.approx(0.6 * alone[3], rel=1e-9)
    mixed = step_s(21, 2, 30 + 4, triangle(20))
    assert only(result, "prefill_s", 1) == pytest.approx(mixed, rel=1e-11)
    assert np.isnan(only(result, "tpot_s", 1))
    assert only(result, "e2e_s", 0) == pytest.approx(sum(alone) - alone[4] + mixed, rel=EXACT)
    assert only(result, "itl_max_s", 0) == pytest.approx(mixed, rel=EXACT)


def test_the_last_admitted_is_preempted_and_recomputed() -> None:
    # 12 usable blocks of one token: contexts 4 + 4 grow by two a step and the third decode step would need 14
    engine = {"block_size": 1, "kv_blocks": 13}
    result = simulate(one_site(engine=engine), [(0.0, 4, 6), (0.0, 4, 6)])
    both = [step_s(8, 2, 0.0, 2 * triangle(4)), step_s(2, 2, 10.0), step_s(2, 2, 12.0)]
    survivor = [step_s(1, 1, 4.0 + i) for i in (3, 4, 5)]
    again = step_s(7, 1, 0.0, triangle(7))  # prompt and the three tokens it has; yields the fourth
    rest = [step_s(1, 1, 8.0), step_s(1, 1, 9.0)]
    assert result.requests["preemptions"].tolist() == [0, 1]
    assert only(result, "e2e_s", 0) == pytest.approx(sum(both) + sum(survivor), rel=EXACT)
    assert only(result, "e2e_s", 1) == pytest.approx(sum(both) + sum(survivor) + again + sum(rest), rel=EXACT)
    assert only(result, "ttft_s", 1) == pytest.approx(both[0], rel=EXACT)
    assert only(result, "itl_max_s", 1) == pytest.approx(sum(survivor) + again, rel=EXACT)
    half = facility_j(both[0] / 2, step_j(8, 2, 0.0, 2 * triangle(4)) / 2)
    assert only(result, "energy_wasted_j", 1) == pytest.approx(half, rel=EXACT)
    assert only(result, "energy_wasted_j", 0) == 0.0
    assert only(result, "energy_prefill_j", 1) == pytest.approx(facility_j(again, step_j(7, 1, 0, 28)), rel=EXACT)
    assert result.pools[0].facility_energy_j["wasted"] == pytest.approx(half, rel=EXACT)
    assert result.pools[0].preemptions == 1
    assert result.gaps[0, 0].count.sum() == 10
    # both first tokens in one instant, the tokens of both decodes, and the recomputed one
    assert result.timeline["output_tokens"].sum() == pytest.approx(12.0, rel=1e-12)


def test_a_prompt_longer_than_the_budget_is_computed_in_chunks() -> None:
    result = simulate(one_site(engine={"max_num_seqs": 4, "max_num_batched_tokens": 16}), [(0.0, 40, 2)])
    pairs = [triangle(16), triangle(32) - triangle(16), triangle(40) - triangle(32)]
    chunks = [step_s(t, 1, 0.0, p) for t, p in zip((16, 16, 8), pairs)]
    assert only(result, "ttft_s") == pytest.approx(sum(chunks), rel=EXACT)
    assert only(result, "tpot_s") == pytest.approx(step_s(1, 1, 41.0), rel=EXACT)


def test_a_step_across_the_hour_is_charged_the_mean() -> None:
    signal = HourlySignal([100.0, 700.0], datetime(2024, 5, 1, tzinfo=UTC), "2024-05-01T00:59:59", "lca")
    arrival = 0.95
    result = simulate(one_site(intensity=signal), [(arrival, 40, 20)])
    t, grams, straddling = arrival, 0.0, 0
    for seconds, joules in lone(40, 20):
        clean_s = min(max(1.0 - t, 0.0), seconds)
        mean = (100.0 * clean_s + 700.0 * (seconds - clean_s)) / seconds
        straddling += 0.0 < clean_s < seconds
        grams += facility_j(seconds, joules) * mean / JOULES_PER_KWH
        t += seconds
    assert straddling == 1
    assert t > 1.05
    assert only(result, "carbon_operational_g") == pytest.approx(grams, rel=1e-11)
    idle = PUE * (IDLE_W + HOST_W) * arrival * 100.0 / JOULES_PER_KWH
    assert result.pools[0].carbon_operational_g["idle"] == pytest.approx(idle, rel=1e-9)
    assert result.pools[0].intensity_mean == pytest.approx((100.0 + 700.0 * (t - 1.0)) / t, rel=EXACT)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.74, 0.9])
def test_a_late_arrival_that_shortens_a_straddling_step(share: float) -> None:
    # Skew slows decode steps but not mixed ones, so the step that the arrival joins becomes shorter. It had already
    # been cut where the intensity changes; now the change may lie beyond its end.
    chip = xpu(timing={"skew_decode": ((1.0, 1.0),), "skew_mixed": ((1.0, 0.0),)})
    rows = [(0.0, 2000, 40), (0.0, 1, 40)]

    def ran(signal: Any, rows: list[Any]) -> Result:
        fleet = one_site(xpu=chip, engine={"kv_blocks": 2000, "max_num_batched_tokens": 8192}, intensity=signal)
        return simulate(fleet, rows, keep_spans=True)

    t, a, b = (float(ran(Constant(1.0), rows).spans[name][1]) for name in ("t0_s", "a_s", "b_s"))
    start, end = (t + k * a + b * k * (k - 1) / 2 for k in (5, 6))
    signal = StepSignal(start + share * (end - start), [100.0] + [900.0] * 99)  # one change, and then none to the end
    result = ran(signal, [*rows, (start + 2e-10, 1, 1)])
    spans, grams = result.spans, 0.0
    assert start in spans["t0_s"]
    assert only(result, "prefill_s", 2) < 0.8 * (end - start)
    for at, k, a, b, dyn_j in zip(*(spans[name] for name in ("t0_s", "steps", "a_s", "b_s", "dyn_j"))):
        seconds = k * a + b * k * (k - 1) / 2
        grams += facility_j(seconds, dyn_j) * signal.integral(at, at + seconds) / seconds / JOULES_PER_KWH
    assert result.pools[0].carbon_operational_g["active"] == pytest.approx(grams, rel=EXACT)
    assert result.requests["carbon_operational_g"].sum() == pytest.approx(grams, rel=EXACT)


def test_rounding_never_makes_a_time_negative() -> None:
    # 0.18.. + (3.05.. - 0.18..) < 3.05.. in floating point: the clock is a rounding error before this arrival
    arrivals = 0.18358631330525577, 3.050802638238386
    assert arrivals[0] + (arrivals[1] - arrivals[0]) < arrivals[1]
    fleet = Fleet((Site("edge", "edge", (pool(),)),), (Link("wire", "client", "edge"),))
    assert simulate(fleet, [(t, 10, 5) for t in arrivals]).requests["uplink_s"].tolist() == [0.0, 0.0]
    # an arrival just after a step boundary joins the step that began there
    boundary = lone(10, 5)[0][0]
    late = simulate(one_site(), [(0.0, 10, 5), (boundary + 5e-10, 10, 5)])
    assert only(late, "queue_s", 1) == 0.0
    assert only(late, "prefill_s", 1) + 1e-9 >= step_s(11, 2, 11.0, triangle(10))


def test_nothing_is_served_before_the_boot_ends() -> None:
    result = simulate(one_site(boot_s=2.0, replicas=2), [(0.5, 40, 6), (0.7, 40, 6), (3.0, 40, 1)])
    service = sum(s for s, _ in lone(40, 6))
    assert result.requests["queue_s"] == pytest.approx([1.5, 1.3, 0.0], rel=EXACT)
    assert only(result, "e2e_s", 1) == pytest.approx(1.3 + service, rel=EXACT)
    totals = result.pools[0]
    assert totals.boot_s == 4.0
    assert totals.facility_energy_j["boot"] == pytest.approx(PUE * (STATIC_W + HOST_W) * 4.0, rel=EXACT)
    idle_s = 2 * (result.end_s - 2.0) - 2 * service - lone(40, 1)[0][0]
    assert totals.facility_energy_j["idle"] == pytest.approx(PUE * (IDLE_W + HOST_W) * idle_s, rel=1e-11)


def test_the_step_that_the_horizon_cuts_is_wasted() -> None:
    steps = lone(40, 50)
    whole, part = sum(s for s, _ in steps[:10]), 0.3
    horizon = whole + part * steps[10][0]
    result = simulate(one_site(), [(0.0, 40, 50)], horizon_s=horizon, drain=False)
    done = facility_j(whole, sum(j for _, j in steps[:10]))
    lost = facility_j(part * steps[10][0], part * steps[10][1])
    assert only(result, "status") == 5
    assert only(result, "output_tokens") == 10
    assert only(result, "energy_j") == 0.0
    assert np.isnan(only(result, "e2e_s"))
    assert only(result, "energy_wasted_j") == pytest.approx(done, rel=EXACT)
    parts = result.pools[0].facility_energy_j
    assert parts["wasted"] == pytest.approx(done + lost, rel=EXACT)
    assert parts["active"] == 0.0
    assert parts["idle"] == pytest.approx(0.0, abs=1e-9)
    assert result.timeline["energy_j"].sum() == pytest.approx(done + lost, rel=1e-10)
    assert result.end_s == horizon


def test_data_may_end_where_the_horizon_is() -> None:
    signal = HourlySignal([100.0, 700.0], datetime(2024, 5, 1, tzinfo=UTC), "2024-05-01T01:00", "lca")
    result = simulate(one_site(intensity=signal), [(3599.8, 40, 500)], horizon_s=3600.0, drain=False)
    busy_s = result.pools[0].busy_s
    assert busy_s == pytest.approx(0.2, rel=1e-9)
    grams = sum(result.pools[0].carbon_operational_g.values())
    assert grams == pytest.approx(sum(result.pools[0].facility_energy_j.values()) * 700.0 / JOULES_PER_KWH, rel=1e-9)
    with pytest.raises(InputError, match="grid hour"):
        simulate(one_site(intensity=signal), [(3599.8, 40, 500)])


def test_the_way_there_and_back_over_a_link() -> None:
    link = Link(
        "wifi", "client", "edge", 0.02, up_bytes_per_s=1e4, down_bytes_per_s=1e5, energy_j_per_byte=1e-3
    )  # fmt: skip
    fleet = Fleet((Site("edge", "edge", (pool(),)),), (link,))
    result = simulate(fleet, [(1.0, 50, 3)], EdgeOnly())
    service = [s for s, _ in lone(50, 3)]
    assert only(result, "uplink_s") == pytest.approx(0.02 + 200 / 1e4, rel=EXACT)
    assert only(result, "downlink_s") == pytest.approx(0.02 + 200 / 1e5, rel=EXACT)
    assert only(result, "ttft_s") == pytest.approx(0.04 + 0.022 + service[0], rel=EXACT)
    assert only(result, "e2e_s") == pytest.approx(0.04 + 0.022 + sum(service), rel=EXACT)
    assert only(result, "energy_network_j") == pytest.approx((200 + 3 * 200) * 1e-3, rel=EXACT)
    assert (result.pools[0].bytes_up, result.pools[0].bytes_down) == (200.0, 600.0)


def test_a_request_on_its_way_at_the_horizon_is_in_flight() -> None:
    fleet = Fleet((Site("edge", "edge", (pool(),)),), (Link("far", "client", "edge", 1.0),))
    result = simulate(fleet, [(0.0, 10, 2), (1.5, 10, 2)], horizon_s=2.0, drain=False)
    assert result.requests["status"].tolist() == [0, 5]
    assert result.requests["pool"].tolist() == [0, 0]
    assert result.timeline["queue"].sum() == pytest.approx(0.0, abs=1e-12)


def test_warmup_and_horizon_say_who_counts() -> None:
    result = simulate(one_site(), [(i * 1.0, 10, 2) for i in range(6)], warmup_s=2.0, horizon_s=5.0)
    assert result.requests["counted"].tolist() == [False, False, True, True, True]
    assert result.observed_s == 3.0
    assert result.end_s == 5.0


def test_a_request_too_long_for_the_pool() -> None:
    fleet = one_site(engine={"kv_blocks": 5})  # one is padding: 4 * 16 tokens with KV, and the last needs none
    longest = simulate(fleet, [(0.0, 60, 5)])
    assert only(longest, "output_tokens") == 5
    with pytest.raises(InputError, match=r"request 1 prompt \+ output tokens=66 .*at most 65.*oversize=reject"):
        simulate(fleet, [(0.0, 10, 1), (1.0, 60, 6)])
    result = simulate(fleet, [(0.0, 10, 1), (1.0, 60, 6)], oversize="reject")
    assert result.requests["status"].tolist() == [0, 1]
    assert result.requests["output_tokens"].tolist() == [1, 0]
    nothing = simulate(fleet, [(0.0, 60, 6)], oversize="reject")
    assert nothing.end_s == 0.0
    assert nothing.timeline["energy_j"].sum() == nothing.timeline["carbon_g"].sum() == 0.0


def test_no_request_at_all() -> None:
    result = simulate(one_site(), [], horizon_s=10.0)
    assert len(result) == 0
    assert sum(result.pools[0].facility_energy_j.values()) == pytest.approx(PUE * (IDLE_W + HOST_W) * 10.0)
    assert result.timeline["energy_j"].sum() == pytest.approx(PUE * (IDLE_W + HOST_W) * 10.0)
    empty = simulate(one_site(), [])
    assert empty.end_s == 0.0
    assert not any(empty.pools[0].facility_energy_j.values())


def test_tables_have_their_schemas() -> None:
    slow = SLOClass("slow", expected_ttft_s=5.0)
    rows = [(0.0, 20, 5, 0), (0.1, 20, 5, 1)]
    result = simulate(one_site(), rows, slo_classes=(CHAT, slow), keep_spans=True)
    for table, schema in (
        (result.requests, REQUEST_COLUMNS),
        (result.timeline, TIMELINE_COLUMNS),
        (result.spans, SPAN_COLUMNS),
    ):
        assert list(table) == list(schema)
        assert [str(values.dtype) for values in table.values()] == [dtype for dtype, _, _ in schema.values()]
        assert len({len(values) for values in table.values()}) == 1
    for parts in (result.pools[0].facility_energy_j, result.pools[0].carbon_operational_g, result.pools[0].cost_usd):
        assert set(parts) == set(PARTS)
    assert simulate(one_site(), rows, slo_classes=(CHAT, slow)).spans is None


def test_progress_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.simulation.EVENTS_BETWEEN_LOOKS", 5)
    monkeypatch.setattr("sim.simulation.PROGRESS_S", 0.0)
    seen: list[Progress] = []
    rows = [(0.3 * i, 10, 2) for i in range(30)]
    run(one_site(), ListWorkload(rows), First(), horizon_s=8.0, progress=seen.append)
    assert len(seen) >= 5
    assert [each.done for each in seen] == sorted(each.done for each in seen)
    assert seen[-1].end_s == 8.0
    assert seen[-1].expected == 30
    assert all(0 <= each.done <= each.arrived <= 27 for each in seen)


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("warmup_s", {"warmup_s": -1.0}),
        ("warmup_s", {"warmup_s": float("nan")}),
        ("horizon_s", {"horizon_s": 0.0}),
        ("horizon_s", {"warmup_s": 5.0, "horizon_s": 5.0}),
        ("horizon_s", {"horizon_s": float("inf")}),
        ("drain", {"drain": False}),
        ("oversize", {"oversize": "drop"}),
        ("timeline_bin_s", {"timeline_bin_s": 0.0}),
        ("timeline_bin_s", {"timeline_bin_s": float("nan")}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 1.5}),
        ("warmup_s", {"warmup_s": "a minute"}),
        ("horizon_s", {"horizon_s": "noon"}),
        ("drain", {"drain": "no"}),
    ],
)
def test_settings_are_checked(key: str, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError) as error:
        simulate(one_site(), [(0.0, 10, 2)], **settings)
    assert error.value.key == key

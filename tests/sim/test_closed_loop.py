"""Closed loops: turns wait for answers, the response time law holds, books balance, and fleets change no content."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim import Fleet, InputError, Link, Site, run
from sim.results import STATUSES
from sim.rng import Streams
from sim.routing import Cascade, CloudOnly, EdgeOnly, LeastOutstanding, RoundRobin
from sim.workload import ClosedSessionWorkload, Fixed, FixedLength, Independent, LogNormal, Poisson
from tests.sim.conftest import CHAT, VOICE, Case, First, cases, fleet_of, pool, xpu
from tests.sim.test_journeys import SURE, Chaos, hybrid

COMPLETED, REJECTED, IN_FLIGHT = (STATUSES.index(name) for name in ("completed", "rejected", "in_flight"))
LENGTHS = Independent(LogNormal(mean=20, sigma=0.8), LogNormal(mean=12, sigma=0.8))
SERVER = {"max_num_seqs": 1, "kv_blocks": 4000}  # one request at a time


def workload(**changes: Any) -> ClosedSessionWorkload:
    """Ten users, until 100 s."""
    fields: dict[str, Any] = {
        "lengths": LENGTHS, "turns": {"mean": 3.0}, "think": {"median_s": 2.0, "sigma": 0.5}, "duration_s": 100.0,
        "slo_classes": (CHAT,), "max_context_tokens": 400,
    } | changes  # fmt: skip
    if "arrivals" not in fields:
        fields.setdefault("users", 10)
    return ClosedSessionWorkload(**fields)


def exact(**changes: Any) -> ClosedSessionWorkload:
    """One user who thinks 2 s, and whose every turn is 10 + 6 tokens more."""
    fixed = {"users": 1, "lengths": Fixed(10, 6), "turns": FixedLength(3), "think": {"median_s": 2.0, "sigma": 0.0}}
    return workload(**fixed | {"duration_s": 30.0} | changes)


def test_the_next_turn_comes_a_think_time_after_the_last_token() -> None:
    requests = run(fleet_of(pool()), exact(), First()).requests
    ends = requests["arrival_s"] + requests["e2e_s"]
    assert requests["arrival_s"][0] == 2.0
    assert requests["arrival_s"][1:] == pytest.approx(ends[:-1] + 2.0)
    assert requests["prompt_tokens"][:7].tolist() == [10, 26, 42, 10, 26, 42, 10]
    assert (requests["arrival_s"] < 30.0).all()
    assert ends[-1] + 2.0 >= 30.0


def test_what_is_left_to_read_comes_first() -> None:
    """6 tokens of 1 s each, of which the answer's own duration has passed; and nothing where it took longer."""
    for read_s, streams in ((1.0, False), (1e-4, True)):
        requests = run(fleet_of(pool()), exact(read_token_s=read_s), First()).requests
        ends, lasted = requests["arrival_s"] + requests["e2e_s"], requests["e2e_s"] - requests["ttft_s"]
        left = np.maximum(6 * read_s - lasted, 0.0)
        assert (left == 0.0).all() == streams
        assert requests["arrival_s"][1:] == pytest.approx((ends + 2.0 + left)[:-1])


def test_the_way_down_and_outages_of_a_link_count() -> None:
    link = Link("link", "client", "site", latency_s=0.3, outages=((2.5, 4.0),))
    fleet = Fleet((Site("site", "cloud", (pool(),)),), (link,))
    requests = run(fleet, exact(), First()).requests
    ends = requests["arrival_s"] + requests["e2e_s"]
    assert requests["e2e_s"][0] > 1.5  # held up until the link is back
    assert requests["arrival_s"][1:] == pytest.approx(ends[:-1] + 2.0)


@pytest.mark.parametrize(("users", "think_s"), [(1, 5.0), (8, 5.0), (40, 5.0), (40, 1.0)])
def test_interactive_response_time_law(users: int, think_s: float) -> None:
    """R = N / X - Z: throughput of N users who think Z is N / (Z + R), whatever the server (Denning, Buzen, 1978)."""
    horizon = 600.0
    work = workload(users=users, think={"mean_s": think_s, "sigma": 0.6}, duration_s=horizon)
    requests = run(fleet_of(pool(engine=SERVER)), work, First()).requests
    rate, response = len(requests["e2e_s"]) / horizon, requests["e2e_s"].mean()
    # each user's unfinished cycle at the end, and the sampling error of the mean think time
    error = (
        users * (response + think_s) / (rate * horizon * (response + think_s))
        + 3.0 * 0.66 / len(requests["e2e_s"]) ** 0.5
    )
    assert rate == pytest.approx(users / (think_s + response), rel=error)
    service = requests["prefill_s"] + requests["decode_s"]
    assert rate <= 1.0 / service.mean() * 1.01  # the server's capacity
    assert rate <= users / (think_s + service.mean()) * (1.0 + error)  # nobody waits less than not at all


def test_exact_think_times_bound_the_law_exactly() -> None:
    """With think times of exactly Z, sums over cycles lie within one cycle a user of N times the duration."""
    users, think_s, horizon = 25, 3.0, 600.0
    work = workload(users=users, think={"median_s": think_s, "sigma": 0.0}, duration_s=horizon)
    e2e = run(fleet_of(pool(engine=SERVER)), work, First()).requests["e2e_s"]
    cycles = len(e2e) * think_s + e2e.sum()
    assert users * (horizon - think_s) <= cycles <= users * (horizon + e2e.max())


class GeometricAnswers:
    """Prompts of one token and answers of geometric lengths, whose service times are all but exponential."""

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Any, Any]:
        return np.ones(n, dtype=np.int64), rng.geometric(1.0 / 60.0, n)


@pytest.mark.parametrize("users", [3, 12])
def test_throughput_of_the_machine_repairman(users: int) -> None:
    """M/M/1 with a finite population: X = (1 - p0) / S, p0 = 1 / sum of N! / (N - k)! (S / Z)^k, for any think time."""
    think_s, horizon = 1.0, 1500.0
    work = workload(
        users=users, think={"mean_s": think_s, "sigma": 1.0}, duration_s=horizon, lengths=GeometricAnswers(),
        turns=FixedLength(1), max_context_tokens=None,
    )  # fmt: skip
    flat = {"layer_overhead_s": 0.0, "seq_overhead_s": 0.0, "kv_eff": 1.0}  # steps hardly grow with the context
    requests = run(fleet_of(pool(engine=SERVER, xpu=xpu(timing=flat))), work, First()).requests
    service = requests["prefill_s"] + requests["decode_s"]
    assert service.std() / service.mean() == pytest.approx(1.0, abs=0.05)
    load = service.mean() / think_s
    terms = np.cumprod([1.0, *((users - k) * load for k in range(users))])
    expected = (1.0 - 1.0 / terms.sum()) / service.mean()
    assert len(service) / horizon == pytest.approx(expected, rel=0.03)


def test_load_falls_when_service_slows() -> None:
    served = [
        len(run(fleet_of(pool(xpu=xpu(speed), engine=SERVER)), workload(users=30), First()))
        for speed in (1.0, 0.3, 0.1)
    ]
    assert served[0] > 1.2 * served[1] > 1.44 * served[2]
    # and a server without end gives every user a cycle of hardly more than a think time
    wide = pool(replicas=30, xpu=xpu(100.0))
    most = len(run(fleet_of(wide), workload(users=30, duration_s=200.0), LeastOutstanding()))
    assert most == pytest.approx(30 * 200.0 / workload().think.mean_s, rel=0.05)


def _contents(work: ClosedSessionWorkload, service_s: Callable[[int], float]) -> dict[int, list[tuple[Any, ...]]]:
    """Turns of each conversation when answers take so long: lengths and names, but not times."""
    loop = work.loop(Streams(3), np.inf, lambda _: None)
    loop.begin()
    found: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    number = 0
    while loop.pending:
        request = loop.take(number)
        if request is None:
            continue
        found[loop.session_of(number)].append((request.prompt, request.output, request.traits, request.hashes))
        loop.answered(number, True, request.arrival_s, request.arrival_s + service_s(number))
        number += 1
    return dict(found)


@pytest.mark.parametrize("mode", [{"users": 12}, {"arrivals": Poisson(1.0)}])
def test_conversations_do_not_depend_on_the_fleet(mode: dict[str, Any]) -> None:
    work = workload(**mode, tenants={"count": 3}, prefix={"tokens": 20, "unit": 4})
    dice = random.Random(0)
    fast, slow = _contents(work, lambda _: 0.0), _contents(work, lambda _: dice.expovariate(0.2))
    both = fast.keys() & slow.keys()
    assert len(both) > 30
    assert sum(map(len, slow.values())) < sum(map(len, fast.values()))
    for session in both:  # as far as they got before the end
        common = min(len(fast[session]), len(slow[session]))
        assert fast[session][:common] == slow[session][:common]


def test_conversations_begin_when_arrivals_say() -> None:
    work = workload(arrivals=Poisson(2.0), turns=FixedLength(1), think={"median_s": 1.0, "sigma": 0.0})
    requests = run(fleet_of(pool()), work, First()).requests
    times = np.concatenate(list(_until(work, 100.0)))
    assert requests["arrival_s"].tolist() == times[times < 100.0].tolist()


def _until(work: ClosedSessionWorkload, end_s: float) -> Any:
    for chunk in work.arrivals.times(Streams(0).get("arrivals")):
        yield chunk
        if chunk[-1] >= end_s:
            return


def test_a_turn_finds_the_conversation_in_the_prefix_cache() -> None:
    work = exact(users=3, prefix={"tokens": 32, "unit": 4}, lengths=Fixed(12, 8), turns=FixedLength(4))
    caching = pool(engine={"prefix_caching": True, "block_size": 4, "kv_blocks": 2000})
    requests = run(fleet_of(caching), work, First()).requests
    later = requests["prompt_tokens"] > 44
    assert later.sum() > 10
    # all before: the prompt less the 12 new tokens, in whole blocks, but for the last token which nobody had computed
    known = requests["prompt_tokens"][later] - 12
    assert (requests["cached_tokens"][later] >= known - 4).all()
    assert (requests["cached_tokens"][later] <= known).all()


def test_an_unanswered_turn_ends_its_conversation() -> None:
    """Prompts of 10, 26, 42 tokens; the last does not fit, so users begin anew after two turns."""
    small = pool(engine={"kv_blocks": 3, "block_size": 16})  # 32 tokens
    result = run(fleet_of(small), exact(), First(), oversize="reject")
    assert (
        result.requests["prompt_tokens"][:6].tolist() == [10, 26, 10, 26, 10, 26]
        or REJECTED in result.requests["status"]
    )
    rejected = int((result.requests["status"] == REJECTED).sum())
    assert rejected > 2
    assert result.sessions is not None
    assert result.sessions["broken"] == rejected
    assert result.sessions["finished"] == 0
    with pytest.raises(InputError, match="oversize=reject"):
        run(fleet_of(small), exact(), First())


def test_conversations_are_counted_by_how_they_end() -> None:
    whole = run(fleet_of(pool()), workload(limit=200, duration_s=None), First())
    assert len(whole) == 200
    for result in (whole, run(fleet_of(pool(engine=SERVER)), workload(), First(), horizon_s=50.0, drain=False)):
        counts = dict(result.sessions or {})
        assert counts.pop("begun") == sum(counts.values())
        assert counts["open"] == int((result.requests["status"] == IN_FLIGHT).sum())
        assert counts["finished"] > 10
        assert counts["cut"] > 0
    assert run(fleet_of(pool()), workload(), First(), horizon_s=50.0).requests["arrival_s"].max() < 50.0


@st.composite
def closed(draw: st.DrawFn) -> tuple[Case, ClosedSessionWorkload, Any]:
    """A random fleet, on which users wait for their answers; some pools fail, some runs have a policy."""
    case = draw(cases())
    fails = draw(st.sampled_from([(), (), ((0.02, 0.05),), ((0.0, 0.2), (0.3, 0.9))]))
    sites = tuple(
        replace(
            site,
            pools=tuple(
                replace(each, outages=fails, engine=replace(each.engine, detokenize_s=0.0)) for each in site.pools
            ),
        )
        for site in case.fleet.sites
    )
    source = draw(st.sampled_from([{"users": 7}, {"arrivals": Poisson(20.0)}]))
    think = {"median_s": draw(st.sampled_from([1e-3, 0.05])), "sigma": 1.0}
    work = workload(
        **source, think=think, duration_s=draw(st.sampled_from([0.3, 1.0])), slo_classes=(CHAT, VOICE),
        slo_mix=(1.0, 1.0), read_token_s=draw(st.sampled_from([0.0, 0.01])), limit=draw(st.sampled_from([None, 40])),
        lengths=Independent(LogNormal(mean=10, sigma=0.7), LogNormal(mean=8, sigma=0.7)), max_context_tokens=90,
    )  # fmt: skip
    router = draw(st.sampled_from([RoundRobin(), LeastOutstanding(), Chaos()]))
    case.fleet = Fleet(sites, case.fleet.links)
    return case, work, router


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(closed())
def test_books_balance_whatever_happens(drawn: tuple[Case, ClosedSessionWorkload, Any]) -> None:
    case, work, router = drawn
    settings = {key: value for key, value in case.settings.items() if key != "slo_classes"}
    result = run(case.fleet, work, router, **settings)
    requests = result.requests
    assert requests["request_id"].tolist() == list(range(len(result)))
    assert (np.diff(requests["arrival_s"]) >= 0.0).all()
    assert (requests["arrival_s"] < min(work.duration_s, settings["horizon_s"] or np.inf)).all()
    assert not (settings["drain"] and (requests["status"] == IN_FLIGHT).any())
    counts = dict(result.sessions or {})
    assert counts.pop("begun") == sum(counts.values())
    assert counts["open"] == int((requests["status"] == IN_FLIGHT).sum())
    assert counts["broken"] == int(((requests["status"] != COMPLETED) & (requests["status"] != IN_FLIGHT)).sum())
    for totals in result.pools:
        parts = sum(totals.facility_energy_j.values())
        shares = requests["energy_provisioned_j"][requests["pool"] == result.pools.index(totals)].sum()
        assert shares <= parts * (1.0 + 1e-9) + 1e-9 or result.legs is not None
    again = run(case.fleet, work, router, **settings)
    for name, column in requests.items():
        np.testing.assert_array_equal(column, again.requests[name])


def test_policies_answer_turns_too() -> None:
    """A cascade shows its answers when it has judged them: the next turn waits for that."""
    policy = Cascade([EdgeOnly(), CloudOnly()], 0.5, verify_s=0.1)
    requests = run(hybrid(), exact(), policy, quality=SURE).requests
    ends = requests["arrival_s"] + requests["e2e_s"]
    assert requests["arrival_s"][1:] == pytest.approx(ends[:-1] + 2.0)
    assert (requests["e2e_s"] == requests["ttft_s"]).any()  # shown at once


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"users": 0}, "workload.users"),
        ({"users": 2.5}, "workload.users"),
        ({"users": 3, "arrivals": Poisson(1.0)}, "workload.users"),
        ({"users": None}, "workload.users"),
        ({"read_token_s": -1}, "workload.read_token_s"),
        ({"think": {"median_s": 1.0, "output_token_s": 0.1}}, "workload.think.output_token_s"),
        ({"think": {"median_s": 0.0}}, "workload.think.median_s"),
        ({"duration_s": None}, "workload.duration_s"),
        ({"rate": 5}, "workload.rate"),
    ],
)
def test_bad_input(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        workload(**changes)
    assert caught.value.key == key


def test_detokenizers_are_refused() -> None:
    with pytest.raises(InputError, match="detokenize_s"):
        run(fleet_of(pool(engine={"detokenize_s": 1e-3})), workload(), CloudOnly())

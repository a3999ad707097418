"""Client links: latency, transmission, exact processor sharing against a fluid simulation, bytes and energy."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from sim.errors import InputError
from sim.fleet.latency import Gamma, Jitter, LogNormal, Quantiles
from sim.fleet.link import Link
from sim.fleet.network import LiveLink, Network
from sim.fleet.outages import Outages
from sim.fleet.spec import Fleet, Site
from sim.hardware.catalogue import list_entries, load_entry
from sim.request import Request
from sim.rng import Streams
from tests.sim.conftest import pool


def live(env=None, seed=1, **fields):
    spec = Link("wan", "client", "edge", **fields)
    return LiveLink(env or Environment(), spec, Streams(seed))


def arrivals(uploads, **fields):
    """Start every (time, bytes) of `uploads` and return when each arrived, in the same order."""
    env = Environment()
    link = live(env, **fields)
    arrived = {}

    def deliver(request):
        assert request.id not in arrived
        arrived[request.id] = env.now

    def clients():
        for index, (start, nbytes) in enumerate(uploads):
            if start > env.now:
                yield env.timeout(start - env.now)
            link.upload(nbytes, Request(index, start, 1, 1), deliver)

    env.process(clients())
    env.run()
    assert link.bytes_up == pytest.approx(math.fsum(nbytes for _, nbytes in uploads))
    return [arrived[index] for index in range(len(uploads))]


def fluid(uploads, bytes_per_s):
    """Processor sharing the slow, obvious way: between any two events, every transfer loses its equal part."""
    left, ends, now, upcoming = {}, [math.nan] * len(uploads), 0.0, list(enumerate(uploads))
    while left or upcoming:
        to_end = min(left.values(), default=math.inf) * len(left) / bytes_per_s if left else math.inf
        to_start = upcoming[0][1][0] - now if upcoming else math.inf
        step = min(to_end, to_start)
        now = now + step
        for index in left:
            left[index] -= step * bytes_per_s / len(left)
        if to_end <= to_start:
            index = min(left, key=left.get)
            ends[index] = now
            del left[index]
        else:
            index, (_, nbytes) = upcoming.pop(0)
            left[index] = nbytes
    return ends


def test_one_upload_takes_transmission_and_latency():
    assert arrivals([(2.0, 500.0)], latency_s=0.05, up_bytes_per_s=1000.0) == [pytest.approx(2.55)]


def test_uploads_do_not_share_unless_told():
    assert arrivals([(0.0, 100.0), (0.0, 100.0)], up_bytes_per_s=100.0) == [1.0, 1.0]
    assert arrivals([(0.0, 100.0), (0.0, 100.0)], up_bytes_per_s=100.0, shared=True) == [2.0, 2.0]


def test_sharing_by_hand():
    # A alone for 1 s (100 of 300 bytes), then with B: B's 50 end at 2 s, A has 150 left and ends at 3.5 s.
    assert arrivals([(0.0, 300.0), (1.0, 50.0)], up_bytes_per_s=100.0, shared=True, latency_s=0.25) == [3.75, 2.25]


def test_a_link_without_latency_and_limits_delivers_at_once_and_schedules_nothing():
    for shared in (False, True):
        env = Environment()
        link = live(env, shared=shared)
        got = []
        request = Request(0, 0.0, 1, 1)
        link.upload(1e9, request, got.append)
        assert got == [request]
        assert env.peek() == math.inf


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.just(0.0), st.floats(0.0, 3.0)), st.one_of(st.just(1000.0), st.floats(1.0, 5000.0))),
        min_size=1,
        max_size=40,
    )
)
def test_processor_sharing_is_the_fluid_limit(gaps_and_bytes):
    start, uploads = 0.0, []
    for gap, nbytes in gaps_and_bytes:
        start += gap
        uploads.append((start, nbytes))
    found = arrivals(uploads, up_bytes_per_s=1000.0, shared=True)
    assert found == pytest.approx(fluid(uploads, 1000.0), rel=1e-9, abs=1e-9)
    # The link is never idle while it has work: the last end is the end of its busiest period.
    assert max(found) <= uploads[-1][0] + sum(nbytes for _, nbytes in uploads) / 1000.0 + 1e-9


def test_sharing_costs_two_events_a_transfer():
    env = Environment()
    link = live(env, up_bytes_per_s=1e6, shared=True)
    done = []
    for index in range(500):
        link.upload(1000.0 + index, Request(index, 0.0, 1, 1), done.append)
    events = 0
    while env.peek() < math.inf:
        env.step()
        events += 1
    assert len(done) == 500
    assert events <= 2 * 500


def test_latency_is_log_normal_around_its_median_and_kept_with_the_request():
    link = live(latency_s=0.03, latency_sigma=0.4)
    drawn = []
    for index in range(4000):
        request = Request(index, 0.0, 1, 1)
        link.upload(0.0, request, lambda request: None)
        drawn.append(math.log(request.net_s))
    assert np.median(drawn) == pytest.approx(math.log(0.03), abs=4 * 1.2533 * 0.4 / 4000**0.5)
    assert np.std(drawn) == pytest.approx(0.4, abs=4 * 0.4 / 8000**0.5)


def test_the_same_stream_gives_the_same_latencies():
    def first_ten(seed):
        link, requests = live(latency_s=0.03, latency_sigma=0.4, seed=seed), [Request(i, 0.0, 1, 1) for i in range(10)]
        for request in requests:
            link.upload(0.0, request, lambda request: None)
        return [request.net_s for request in requests]

    assert first_ten(1) == first_ten(1) != first_ten(2)


def test_the_way_back_is_the_same_latency_and_one_chunk():
    link = live(latency_s=0.02, latency_sigma=0.5, down_bytes_per_s=1000.0, chunk_bytes=50.0)
    request = Request(0, 0.0, 1, 1)
    link.upload(1.0, request, lambda request: None)
    assert request.net_s != 0.02
    assert link.downlink_s(request) == request.net_s + 0.05


def test_energy_is_per_byte_of_both_ways_and_unknown_stays_unknown():
    link = live(energy_j_per_byte=1e-6)
    link.upload(4000.0, Request(0, 0.0, 1, 1), lambda request: None)
    link.streamed(10)
    assert (link.bytes_up, link.bytes_down) == (4000.0, 2000.0)
    assert link.energy_j() == pytest.approx(6e-3)
    assert live().energy_j() is None


@pytest.mark.parametrize("field", ["prompt_bytes_per_token", "chunk_bytes"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_bad_sizes_name_their_key(field, value):
    with pytest.raises(InputError) as error:
        live(**{field: value})
    assert error.value.key == f"links.wan.{field}"


def test_every_link_file_builds_a_link():
    known = {field.name for field in fields(Link)} - {"name", "source", "target", "source_note"}
    needed = {
        "latency_s", "latency_sigma", "up_bytes_per_s", "down_bytes_per_s", "shared", "prompt_bytes_per_token",
        "chunk_bytes", "energy_j_per_byte",
    }  # fmt: skip
    assert set(list_entries("link")) >= {"wifi_lan_edge", "fiber_metro_edge", "5g_edge", "4g", "internet_cloud"}
    for name in list_entries("link"):
        entry = load_entry("link", name)
        assert needed <= set(entry.provenance) <= known
        link = Link(name, "client", "edge", **entry.values)
        assert 0.0 < link.latency_s < 0.3
        assert link.energy_j_per_byte is None
        assert all(link.medium in load_entry("network_energy", each).values for each in ("unknown", "low", "central"))


def test_latency_between_regions_is_that_of_their_distance():
    """The great circle by three-dimensional vectors, 1.5 times as long a way, at two thirds of the speed of light."""
    names = [name for name in list_entries("link") if name.startswith("wan_")]
    assert len(names) >= 8
    for name in names:
        entry = load_entry("link", name)
        unit, source, kind = entry.provenance["latency_s"]
        assert (unit, kind) == ("s", "derived")
        degrees = re.search(r"\(.* ([-.0-9]+) ([-.0-9]+) to .* ([-.0-9]+) ([-.0-9]+) degrees\) x 1.5", source)
        assert degrees is not None
        lat, lon = np.radians(np.array(degrees.groups(), dtype=float)).reshape(2, 2).T
        x = np.column_stack((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))
        km = 6371.0 * math.acos(float(x[0] @ x[1]))
        assert entry.values["latency_s"] == pytest.approx(1.5 * km / (299_792.458 * 2.0 / 3.0), abs=1e-4)
        grids = [grid for grid in list_entries("grid") if f"_{grid}_" in f"{name}_"]
        assert len(grids) >= 2, name


# -- latencies, cells and grants --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latency", "mean_s", "sd_s", "median_s"),
    [
        (LogNormal(0.02, 0.5), 0.02 * math.exp(0.125), 0.02 * math.sqrt(math.exp(0.5) - math.exp(0.25)), 0.02),
        (Gamma(0.01, 0.5, fixed_s=0.03), 0.04, 0.005, None),
        (Gamma(0.01), 0.01, 0.01, 0.01 * math.log(2.0)),
        (Jitter(0.01, 0.006), 0.013, 0.006 / 12**0.5, 0.013),
        (Quantiles([[0.0, 0.01], [0.5, 0.02], [1.0, 0.06]]), 0.0275, None, 0.02),
        (Quantiles([[0.5, 0.02]]), 0.02, 0.0, 0.02),
    ],
)
def test_latencies_have_their_moments_and_median(latency, mean_s, sd_s, median_s):
    drawn = latency.draw(np.random.default_rng(3), 40_000)
    assert drawn.mean() == pytest.approx(mean_s, abs=4 * drawn.std() / 200 + 1e-12)
    if sd_s is not None:
        assert drawn.std() == pytest.approx(sd_s, rel=0.05, abs=1e-12)
    share = np.mean(drawn <= latency.median_s)
    assert share == pytest.approx(0.5, abs=0.01) or drawn.std() == pytest.approx(0.0, abs=1e-15)
    if median_s is not None:
        assert latency.median_s == pytest.approx(median_s)
    assert (drawn >= 0.0).all()


def test_a_link_takes_its_latencies_from_its_distribution():
    env, network = places(Link("radio", "client", "edge", latency=Jitter(0.01, 0.02)))
    assert network.latency_s("edge", "client") == pytest.approx(0.02)
    link = network.client_link("edge")
    times = []
    for index in range(2000):
        request = Request(index, 0.0, 1, 1)
        link.upload(0.0, request, lambda request: times.append(env.now))
        assert link.downlink_s(request) == request.net_s
    env.run()
    assert 0.01 <= min(times) < 0.011
    assert 0.029 < max(times) <= 0.03


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Gamma(0.0), "latency.mean_s"),
        (lambda: Gamma(0.1, -1.0), "latency.cv"),
        (lambda: Jitter(-0.1), "latency.fixed_s"),
        (lambda: LogNormal(0.1, math.nan), "latency.sigma"),
        (lambda: Quantiles([]), "latency.points"),
        (lambda: Quantiles([0.5, 0.1]), "latency.points[0]"),
        (lambda: Quantiles([[0.5, 0.2], [0.9, 0.1]]), "latency.points[1]"),
        (lambda: Quantiles([[0.5, 0.2], [0.5, 0.3]]), "latency.points[1]"),
        (lambda: Quantiles([[1.5, 0.2]]), "latency.points[0]"),
        (lambda: live(latency=0.1), "links.wan.latency"),
        (lambda: live(latency=Jitter(0.1), latency_s=0.1), "links.wan.latency"),
        (lambda: live(cells=2), "links.wan.cells"),
        (lambda: live(cells=0, shared=True), "links.wan.cells"),
        (lambda: live(grant_s=-1.0), "links.wan.grant_s"),
        (lambda: live(up_bytes_per_s=0.0), "links.wan.up_bytes_per_s"),
        (lambda: live(down_bytes_per_s=0.0), "links.wan.down_bytes_per_s"),
    ],
)
def test_what_cannot_be_names_its_key(make, key):
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key


def test_an_upload_waits_for_its_grant_by_hand():
    # 0.5 s for a grant, then 100 bytes at 100 bytes/s, shared by two, and 0.25 s
    fields = {"up_bytes_per_s": 100.0, "latency_s": 0.25, "grant_s": 0.5}
    assert arrivals([(0.0, 100.0)], **fields) == [1.75]
    assert arrivals([(0.0, 100.0), (0.0, 100.0)], shared=True, **fields) == [2.75, 2.75]
    # only up: what comes down needs no grant
    env, network = places(Link("radio", "client", "edge", down_bytes_per_s=100.0, grant_s=0.5))
    assert sent(env, network, [(0.0, "edge", "client", 100.0), (0.0, "client", "edge", 100.0)]) == [1.0, 0.5]


def test_waits_for_a_grant_are_uniform_in_the_period():
    waits = np.sort(arrivals([(0.0, 1.0)] * 4000, grant_s=1.0, grant_period_s=0.01)) - 1.0
    assert waits == pytest.approx(np.linspace(0.0, 0.01, 4000), abs=4e-4)


def test_each_cell_has_the_capacity_for_its_own():
    # 400 uploads of 1 byte at once: a cell with n of them ends them all at n / 100 s
    ends = arrivals([(0.0, 1.0)] * 400, up_bytes_per_s=100.0, shared=True, cells=4)
    found, counts = np.unique(np.round(ends, 9), return_counts=True)
    cells = counts / (found * 100.0)  # of equally many
    assert cells == pytest.approx(np.round(cells))
    assert cells.sum() == pytest.approx(4.0)
    assert found.min() >= 0.6  # of 100 expected in each, four standard deviations of 8.7


# -- between any two places -------------------------------------------------------------------------------------------


def places(*links: Link) -> tuple[Environment, Network]:
    """A device, an edge and a cloud site, joined by `links`."""
    env = Environment()
    sites = [Site(kind, kind, [pool(kind)]) for kind in ("device", "edge", "cloud")]
    return env, Network(env, Fleet(sites, links), Streams(1))


def sent(env: Environment, network: Network, transfers: list[tuple[float, str, str, float]]) -> list[float]:
    """Begin every (time, source, target, bytes), and return when each arrived."""
    ends = [math.nan] * len(transfers)

    def begin(index: int, source: str, target: str, nbytes: float) -> None:
        network.transfer(source, target, nbytes, lambda: ends.__setitem__(index, env.now))

    def clients():
        for index, (start, *what) in enumerate(transfers):
            yield env.timeout(start - env.now)
            begin(index, *what)

    env.process(clients())
    env.run()
    return ends


WAN = Link("wan", "edge", "cloud", 0.25, up_bytes_per_s=100.0, down_bytes_per_s=50.0, shared=True)


def test_transfers_share_a_direction_and_not_the_other():
    env, network = places(WAN)
    # up, as two uploads by hand above; down, 100 bytes alone at 50 bytes/s
    found = sent(
        env, network, [(0.0, "edge", "cloud", 300.0), (0.0, "cloud", "edge", 100.0), (1.0, "edge", "cloud", 50.0)]
    )
    assert found == [3.75, 2.25, 2.25]
    assert (network.links[0].bytes_up, network.links[0].bytes_down) == (350.0, 100.0)


def test_requests_and_transfers_share_one_uplink():
    env, network = places(Link("radio", "client", "edge", up_bytes_per_s=100.0, shared=True))
    got: list[float] = []
    network.transfer("client", "edge", 100.0, lambda: got.append(env.now))
    link = network.client_link("edge")
    assert link is not None
    link.upload(100.0, Request(0, 0.0, 1, 1), lambda request: got.append(env.now))
    env.run()
    assert got == [2.0, 2.0]


def test_places_that_no_link_joins():
    env, network = places(WAN)
    got: list[str] = []
    network.transfer("edge", "edge", 1e9, lambda: got.append("here"))
    network.transfer("client", "device", 1e9, lambda: got.append("by the client"))
    assert got == ["here", "by the client"]
    assert env.peek() == math.inf
    assert network.latency_s("cloud", "edge") == 0.25
    assert network.latency_s("client", "device") == 0.0
    assert network.joined("cloud", "edge")
    assert network.up("edge", "cloud")
    assert network.up("client", "edge")
    for pair in (("device", "cloud"), ("edge", "moon"), ("client", "moon"), ("moon", "moon")):
        assert not network.joined(*pair)
        assert not network.up(*pair)
        for ask in (network.latency_s, lambda *pair: network.transfer(*pair, 1.0, env.run)):
            with pytest.raises(InputError, match="a link that joins them"):
                ask(*pair)


def test_energy_of_a_transfer():
    _env, network = places(replace(WAN, energy_j_per_byte=2e-6))
    assert network.energy_j("cloud", "edge", 1e6) == 2.0
    assert network.energy_j("client", "edge", 1e6) == 0.0
    assert places(WAN)[1].energy_j("cloud", "edge", 1e6) is None


# -- outages ----------------------------------------------------------------------------------------------------------


def test_an_outage_stalls_what_is_under_way():
    env, network = places(replace(WAN, outages=[[1.0, 3.0], [5.0, 6.0]]))
    # 300 bytes need 3 s and 0.25 s of latency: 1 s, 2 s of outage, 2 s, 1 s of outage, 0.25 s.
    assert sent(env, network, [(0.0, "edge", "cloud", 300.0)]) == [6.25]
    # begun in an outage, the other way: 1 s to wait, 1 s and 0.25 s
    env, network = places(replace(WAN, outages=[[1.0, 3.0], [5.0, 6.0]]))
    assert sent(env, network, [(2.0, "cloud", "edge", 50.0)]) == [4.25]


def test_an_outage_stops_requests_and_latency_too():
    env = Environment()
    link = live(env, latency_s=0.5, outages=[[0.25, 10.0]])
    got: list[float] = []
    link.upload(1.0, Request(0, 0.0, 1, 1), lambda request: got.append(env.now))
    env.run()
    assert got == [10.25]


def test_a_link_says_when_it_is_down():
    env, network = places(replace(WAN, outages=[[1.0, 3.0]]))
    seen = []
    for until in (0.5, 1.0, 2.0, 3.0, 4.0):
        env.run(until=until)
        seen.append((network.up("cloud", "edge"), network.up("client", "edge")))
    assert seen == [(True, True), (False, True), (False, True), (True, True), (True, True)]


SPANS = st.lists(st.floats(0.01, 2.0), min_size=2, max_size=8).map(
    lambda gaps: [
        (float(start), float(end)) for start, end in zip(np.cumsum(gaps)[::2], np.cumsum(gaps)[1::2]) if end > start
    ]
)


@settings(max_examples=100, deadline=None)
@given(SPANS, st.floats(0.0, 10.0), st.floats(0.001, 5.0))
def test_time_of_a_link_stands_still_while_it_is_down(spans, start, work):
    outages = Outages(spans)
    end = outages.later(start, work)
    assert outages.elapsed(start, end) == pytest.approx(work, abs=1e-9)
    cut = [max(0.0, min(b, end) - max(a, start)) for a, b in spans]
    assert end - start == pytest.approx(work + sum(cut), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(SPANS, st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(1.0, 3000.0)), min_size=1, max_size=15))
def test_sharing_with_outages_is_sharing_in_the_links_time(spans, gaps_and_bytes):
    outages = Outages(spans)
    starts = np.cumsum([gap for gap, _ in gaps_and_bytes]).tolist()
    uploads = [(start, nbytes) for start, (_, nbytes) in zip(starts, gaps_and_bytes)]
    found = arrivals(uploads, up_bytes_per_s=1000.0, shared=True, outages=spans)
    own = fluid([(outages.elapsed(0.0, start), nbytes) for start, nbytes in uploads], 1000.0)
    assert [outages.elapsed(0.0, end) for end in found] == pytest.approx(own, rel=1e-9, abs=1e-9)
    assert not any(outages.down(end + 1e-9) and outages.down(end - 1e-9) for end in found)


@pytest.mark.parametrize(
    ("outages", "message"),
    [
        ("never", "a list of"),
        ([3.0, 4.0], "0 <= start_s < end_s"),
        ([[3.0, 3.0]], "0 <= start_s < end_s"),
        ([[-1.0, 3.0]], "0 <= start_s < end_s"),
        ([[1.0, math.nan]], "0 <= start_s < end_s"),
        ([[4.0, 5.0], [1.0, 2.0]], "begin after 5 s"),
        ([[1.0, 4.0], [3.0, 5.0]], "begin after 4 s"),
    ],
)
def test_bad_outages_name_their_key(outages, message):
    with pytest.raises(InputError, match=message) as error:
        live(outages=outages)
    assert error.value.key.startswith("links.wan.outages")


def test_links_that_cannot_be():
    with pytest.raises(InputError, match=r"links\.self\.target"):
        Link("self", "edge", "edge")
    with pytest.raises(InputError, match="cloud and edge"):
        places(WAN, Link("again", "cloud", "edge"))

"""What links carried: bytes, energy and carbon of each, and all of them against the requests'."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given

from analysis import summarize
from sim.accounting.signal import Constant, Unknown
from sim.errors import InputError
from sim.fleet.link import Link
from sim.fleet.spec import Fleet, Site
from sim.request import Request
from sim.routing import Spillover
from sim.units import JOULES_PER_KWH
from tests.sim.conftest import Case, cases, pool, simulate
from tests.sim.test_invariants import runs

EDGE = Site("edge", "edge", (pool("edge"),), Constant(100.0, "lca"))
CLOUD = Site("cloud", "cloud", (pool("cloud"),), Constant(300.0, "lca"))
TO_EDGE = Link("to edge", "client", "edge", 0.01, energy_j_per_byte=1e-3, outages=[[0.5, 0.75], [90.0, 99.0]])
TO_CLOUD = Link("to cloud", "client", "cloud", 0.02, energy_j_per_byte=2e-3, intensity=Constant(50.0, "lca"))
WAN = Link("wan", "edge", "cloud", 0.03, energy_j_per_byte=4e-3)


class Mover(Spillover):
    """Spills over, and moves 1 kB from the edge to the cloud, and 250 bytes back, for every request."""

    def choose(self, request: Request, fleet: object) -> object:
        for places, nbytes in ((("edge", "cloud"), 1000.0), (("cloud", "edge"), 250.0)):
            fleet.network.transfer(*places, nbytes, partial(int, 0))
        return super().choose(request, fleet)


def test_every_link_by_hand() -> None:
    """Ten requests of 10 prompt and 5 output tokens that the edge serves: 40 bytes up and 1,000 down each."""
    rows = [(0.2 * i, 10, 5) for i in range(10)]
    result = simulate(Fleet((EDGE, CLOUD), (TO_EDGE, TO_CLOUD, WAN)), rows, Mover())
    edge, cloud, wan = result.links
    assert (edge.source, edge.target, edge.bytes_up, edge.bytes_down) == ("client", "edge", 400.0, 10_000.0)
    assert edge.energy_j == pytest.approx(10.4)
    assert edge.carbon_g == pytest.approx(10.4 * 100.0 / JOULES_PER_KWH)
    assert edge.down_s == pytest.approx(0.25)
    assert (cloud.bytes_up, cloud.energy_j, cloud.intensity_mean) == (0.0, 0.0, 50.0)
    assert (wan.bytes_up, wan.bytes_down) == (10_000.0, 2500.0)
    assert wan.energy_j == pytest.approx(50.0)
    assert wan.carbon_g == pytest.approx(50.0 * 200.0 / JOULES_PER_KWH)  # the mean of its two ends
    summary = summarize(result)
    parts = summary["total"]["parts"]
    assert parts["energy_kwh"]["network"] == pytest.approx(60.4 / JOULES_PER_KWH)
    assert parts["carbon_operational_kg"]["network"] == pytest.approx((edge.carbon_g + wan.carbon_g) / 1e3)
    assert summary["by_link"]["wan"]["energy_kwh"] == pytest.approx(50.0 / JOULES_PER_KWH)
    assert summary["total"]["bytes_down"] == 12_500.0


def test_a_link_with_a_grid_of_its_own_is_charged_at_it() -> None:
    rows = [(0.0, 10, 5)]
    result = simulate(Fleet((CLOUD,), (TO_CLOUD,)), rows)
    assert result.links[0].carbon_g == pytest.approx(2.08 * 50.0 / JOULES_PER_KWH)
    assert result.pools[0].carbon_operational_g["network"] == pytest.approx(result.links[0].carbon_g)


def test_what_is_unknown_of_a_link_is_said() -> None:
    fleet = Fleet((EDGE, CLOUD), (TO_EDGE, TO_CLOUD, replace(WAN, energy_j_per_byte=None)))
    summary = summarize(simulate(fleet, [(0.0, 10, 5)], Mover()))
    assert summary["by_link"]["wan"]["energy_kwh"] is None
    assert summary["total"]["incomplete"] == ["link wan: energy between sites is unknown and left out"]
    nowhere = Fleet((replace(EDGE, intensity=Unknown()),), (TO_EDGE,))
    link = simulate(nowhere, [(0.0, 10, 5)]).links[0]
    assert link.energy_j == pytest.approx(1.04)
    assert link.carbon_g is None


def test_bases_are_not_mixed() -> None:
    with pytest.raises(InputError, match="one basis"):
        Fleet((CLOUD,), (replace(TO_CLOUD, intensity=Constant(50.0, "direct")),))


@runs
@given(cases())
def test_links_carry_what_the_requests_and_pools_have(case: Case) -> None:
    result, requests = case.result, case.result.requests
    sites = np.array([totals.site for totals in result.pools])
    at = np.where(requests["pool"] >= 0, sites[requests["pool"]], "")
    for link in result.links:
        mine = at == link.target
        pools = [totals for totals in result.pools if totals.site == link.target]
        assert link.bytes_up == pytest.approx(sum(totals.bytes_up for totals in pools))
        assert link.bytes_down == pytest.approx(sum(totals.bytes_down for totals in pools))
        energy = requests["energy_network_j"][mine].sum()
        assert energy == pytest.approx(link.energy_j or 0.0, rel=1e-9)
        assert energy == pytest.approx(sum(totals.facility_energy_j["network"] for totals in pools), rel=1e-9)
        grams = sum(totals.carbon_operational_g["network"] for totals in pools)
        assert grams == pytest.approx(link.carbon_g or 0.0, rel=1e-9)

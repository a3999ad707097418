"""Policies made of others, as configured; and what no request could ever pass is refused, or counted as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from scenarios.build import build
from sim import Constant, Fleet, Site, run
from sim.quality import QualityModel
from sim.workload import Fixed, Poisson, SyntheticWorkload
from tests.scenarios import command
from tests.scenarios.test_build import config_of
from tests.sim.conftest import pool

SURE = QualityModel("mmlu", 0.0, 0.99, 0.9999)  # a verifier that is hardly ever wrong
SMALL = ("fleet=hybrid", "workload=poisson", "workload.limit=30", "figures=false", "report=false", "progress=none")
TINY = [f"fleet.sites.{name}.pools.{name}.engine.max_model_len=100" for name in ("edge", "cloud")]


class Noting:
    """A policy, and which requests were private."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.balancer, self.private = inner, inner.balancer, set[int]()
        self.bind = inner.bind

    def handle(self, request: Any, fleet: Any) -> Any:
        if request.traits.private:
            self.private.add(request.id)
        return self.inner.handle(request, fleet)


@pytest.mark.parametrize("rate", [0.5, 30.0])
def test_private_requests_stay_others_cascade_and_the_last_stage_spills_over(rate: float) -> None:
    fleet = Fleet(
        tuple(
            Site(kind, kind, (pool(kind, quality={"mmlu": good}, engine=engine, replicas=replicas),), Constant(100.0))
            for kind, good, engine, replicas in (
                ("device", 0.5, {}, 4), ("edge", 0.5, {}, 4), ("cloud", 0.95, {"max_num_seqs": 2}, 1),
            )
        )
    )  # fmt: skip
    policy = Noting(build(config_of("router=private_cascade")).router)
    workload = SyntheticWorkload(Poisson(rate), Fixed(40, 20), limit=200, privacy={"share": 0.3})
    result = run(fleet, workload, policy, seed=1, quality=SURE)
    legs, up = result.legs, result.requests["escalations"] == 1
    assert legs is not None
    assert (result.requests["status"] == 0).all()
    private = np.isin(legs["request_id"], list(policy.private))
    assert 30 < len(policy.private) < 90
    assert set(legs["pool"][private].tolist()) <= {0, 1}
    assert not up[list(policy.private)].any()
    open_first = [int(legs["pool"][(legs["request_id"] == i)][0]) for i in range(200) if i not in policy.private]
    assert set(open_first) == {1}
    assert up.any()
    last = [int(legs["pool"][legs["request_id"] == i][1]) for i in np.flatnonzero(up)]
    assert 2 in last
    assert (set(last) == {2}) == (rate < 1.0)  # the cloud has two seats: under load it is full, and others help out
    assert (result.requests["tokens_wasted"][up] == 20).all()


CASCADE = "router=cascade"
EDGE, CLOUD = "{_target_: sim.routing.EdgeOnly}", "{_target_: sim.routing.CloudOnly}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([CASCADE, f"router.stages=[{EDGE},${{router}}]"], "router.stages[1]"),
        ([CASCADE, "router.stages=[${router.stages}]"], "router.stages[0]"),
        ([CASCADE, f"router.stages=[{{_target_: sim.routing.Cascade, stages: [{EDGE},{CLOUD}]}},{CLOUD}]"], "only"),
        (["router=stale", "router.router=${router}"], "router.router"),
        (["router=prefill_decode_split", "router.prefill=moon"], "a pool of the fleet: edge, cloud"),
        (["router=random_split", "router.weak=elsewhere"], "a pool of the fleet: edge, cloud"),
        (["router=hedged_race", "router.first=moon"], "device | edge | cloud"),
        (["router=private_cascade", "fleet=cloud"], "device or edge"),
        ([CASCADE, "~fleet.links.to_edge"], "a link to edge as well"),
        ([CASCADE, "fleet.links.to_edge.target=moon"], "edge | cloud"),
        ([CASCADE, "+fleet.links.to_edge.up_bytes_per_s=0"], "a capacity > 0 bytes/s"),
        ([CASCADE, *TINY], "oversize=reject"),
        (["router=hedged_race", *TINY], "oversize=reject"),
        (["router=timeout", *TINY], "oversize=reject"),
        (["router=cloud_only", *TINY], "oversize=reject"),
        (["router=layer_split"], "a link that joins edge and cloud"),
        (["router=cloud_only", "fleet.sites.edge.pools.edge.layers=[0,8]"], "router=layer_split"),
        (["router=layer_split", "fleet.sites.edge.pools.edge.layers=[0,99]"], "pools.edge.layers=[0, 99]"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command.run(["run", *SMALL, *arguments, f"out={tmp_path / 'run'}"], capsys)
    assert done.status == 2
    assert done.err.startswith("hybridfleet: error: ")
    assert done.err.count("\n") == 1
    assert words in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("router", ["cascade", "hedged_race", "timeout", "edge_answer_cloud_validate"])
def test_what_no_pool_can_hold_is_counted_as_rejected_if_so_wished(
    router: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = command.run(["run", *SMALL, f"router={router}", *TINY, "oversize=reject", f"out={tmp_path / 'run'}"], capsys)
    assert done.status == 0, done.err
    requests = pl.read_parquet(tmp_path / "run" / "requests.parquet")
    long = requests["prompt_tokens"] > 99
    assert long.any()
    assert (requests.filter(long)["status"] == "rejected").all()

"""A configuration to objects: what the groups become, and what may be named as a plug-in."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from scenarios.build import Scenario, build
from scenarios.compose import Job, compose
from scenarios.schema import Section, integer, unknown_key
from scenarios.targets import check_targets, instantiate, locate
from sim.accounting.cost import Owned, Rent
from sim.errors import InputError
from sim.fleet.api import ApiPool
from sim.fleet.latency import Gamma
from sim.hardware import catalogue
from sim.hardware.sizing import check_fit
from sim.rng import Streams

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:00:00,10,10\n"
#: One request in the layout of every workload that replays a trace.
TRACES = {
    "azure_trace": AZURE,
    "azure_multimodal_trace": "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 00:00:00,1,600,6\n",
    "trace": AZURE,
    "burstgpt_trace": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,X,9,8,17,API log\n",
    "csv_trace": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,10,10\n",
    "labelled_trace": "weak_correct,strong_correct\n1,1\n",
    "mooncake_trace": '{"timestamp": 0, "input_length": 10, "output_length": 5, "hash_ids": [0]}\n',
    "vllm_trace": '{"arrival_time": 0.5, "input_toks": 10, "output_toks": 5}\n',
}
CONF = Path(__file__).resolve().parents[2] / "conf"


def options(group: str) -> list[str]:
    """What a group of the packaged configuration can be."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def config_of(*overrides: str) -> dict[str, Any]:
    """The configuration that a command line makes."""
    found: list[dict[str, Any]] = []

    def keep(job: Job) -> None:
        found.append(job.resolve())

    compose(Namespace(overrides=overrides, multirun=False, config_dir=None, cfg=None), keep)
    return found[0]


def built(*overrides: str) -> Scenario:
    return build(config_of(*overrides))


@pytest.mark.parametrize("name", options("fleet"))
def test_every_fleet_builds_and_fits(name: str) -> None:
    fleet = built(f"fleet={name}").fleet
    assert all(check_fit(pool) > 100 for pool in fleet.pools if not isinstance(pool, ApiPool))
    linked = {link.target for link in fleet.links}
    assert linked <= {site.name for site in fleet.sites}


@pytest.mark.parametrize("name", options("router"))
def test_every_router_builds(name: str) -> None:
    needed = {"speculative_edge_draft": ["router.acceptance=0.7"]}  # what depends on two models has no default
    router = built(f"router={name}", *needed.get(name, [])).router
    assert callable(getattr(router, "choose", None) or getattr(router, "handle", None))


def client_mix(folder: Path) -> list[Path]:
    """A folder with the two files of one client."""
    folder.mkdir()
    data, trace = folder / "a-dataset.json", folder / "a-trace.csv"
    data.write_text('{"0": {"input_tokens": "{9: 1.0}", "output_tokens": "{3: 1.0}"}}')
    trace.write_text("0,1,1,Gamma,1,1\n600,1,1,Gamma,1,1\n")
    return [data, trace]


@pytest.mark.parametrize("name", options("workload"))
def test_every_workload_builds(name: str, tmp_path: Path) -> None:
    trace, inputs = tmp_path / "trace", []
    if name == "servegen":
        inputs = client_mix(trace)
    elif name in TRACES:
        trace.write_text(TRACES[name])
        inputs = [trace]
    path = [f"workload.path={trace}"] if inputs else []
    scenario = built(f"workload={name}", *path)
    assert [cls.name for cls in scenario.workload.slo_classes] == ["chat"]
    assert list(scenario.inputs) == inputs


@pytest.mark.parametrize("name", options("workload/traits"))
def test_all_traits_build(name: str) -> None:
    workload = built("workload=poisson", f"workload/traits=[none,{name}]").workload
    batch = next(iter(workload.batches(Streams(0))))
    assert (batch.traits is None) == (name == "none")


@pytest.mark.parametrize("name", options("quality"))
def test_every_quality_builds(name: str) -> None:
    quality = built(f"quality={name}").quality
    assert quality is not None
    assert quality.task == (None if name == "none" else name)


@pytest.mark.parametrize("name", options("slo"))
def test_every_slo_builds(name: str) -> None:
    classes = built(f"slo={name}").workload.slo_classes
    assert len(classes) >= 1
    assert all(cls.ttft_s > 0.0 for cls in classes)


def test_the_default_scenario() -> None:
    scenario = built()
    assert [site.kind for site in scenario.fleet.sites] == ["edge", "cloud"]
    edge, cloud = scenario.fleet.pools
    assert isinstance(edge.cost, Owned)
    assert isinstance(cloud.cost, Rent)
    assert edge.embodied is not None
    assert edge.host is not None
    assert edge.host.embodied is not None
    assert {site.intensity.basis for site in scenario.fleet.sites} == {"lca"}
    assert set(scenario.kinds) <= set(catalogue.KINDS)
    assert scenario.kinds["assumed"] > 0


def test_overrides_reach_their_object() -> None:
    pool = "fleet.sites.cloud.pools.cloud"
    scenario = built(
        f"{pool}.replicas=3", f"{pool}.engine.kv_blocks=999", "+fleet.links.to_cloud.latency_s=0.1", "basis=direct"
    )
    assert scenario.fleet.pools[1].replicas == 3
    assert scenario.fleet.pools[1].engine.kv_blocks == 999
    assert scenario.fleet.links[1].latency_s == 0.1
    assert scenario.fleet.links[1].up_bytes_per_s == pytest.approx(4.75e6)
    assert scenario.fleet.sites[0].intensity.basis == "direct"


def test_a_fleet_of_one_pool_needs_no_sites() -> None:
    fleet = built("fleet=single", "fleet.xpu=l40s", "fleet.replicas=2", "fleet.pue=1.4", "fleet.grid=123").fleet
    assert (fleet.pools[0].xpu.id, fleet.pools[0].replicas) == ("l40s", 2)
    assert (fleet.sites[0].pue, fleet.sites[0].intensity.at(0.0)) == (1.4, 123.0)
    assert fleet.links == ()


def test_a_pool_that_is_owned_takes_the_price_of_its_xpu() -> None:
    edge = "fleet.sites.edge.pools.edge"
    costs = [built(f"{edge}.xpu={xpu}").fleet.pools[0].cost for xpu in ("l4", "l40s", "rtx_a6000")]
    prices = [cost.purchase_usd_per_xpu if isinstance(cost, Owned) else None for cost in costs]
    assert prices == [2500.0, 7500.0, None]  # nobody knows the last: its cost is unknown


def test_prices_and_carbon_of_ones_own() -> None:
    (pool,) = built(
        "fleet=single",
        "fleet.cost={type:rent,usd_per_xpu_hour:3.6,as_of:today}",
        "fleet.embodied={method:given,kg:100,low_kg:50,high_kg:200,boundary:board,lifetime_years:4}",
        "fleet.host={type:hgx_8gpu,power_w:99}",
    ).fleet.pools
    assert pool.cost is not None
    assert pool.cost.rates().usd_per_xpu_s == pytest.approx(0.001)
    assert pool.embodied is not None
    assert pool.embodied.g_per_s() == pytest.approx(100e3 / (4 * 8760 * 3600))
    assert (pool.embodied.low_kg, pool.embodied.boundary) == (50.0, "board")
    assert pool.host is not None
    assert pool.host.power_w == 99.0
    assert pool.host.embodied is not None


def test_an_unknown_price_is_unknown_and_not_zero() -> None:
    entry = catalogue.load_entry("xpu", "snapdragon_8_gen_3")
    assert entry.values["rent_usd_per_hour"] is None
    config = config_of("fleet=single", "fleet.cost=rent")
    config["fleet"] |= {"model": "llama_3_2_1b", "xpu": "snapdragon_8_gen_3", "precision": "fp16"}
    assert build(config).fleet.pools[0].cost is None


def test_a_null_group_member_is_taken_out() -> None:
    fleet = built("fleet.sites.edge=null", "fleet.links.to_edge=null").fleet
    assert [site.name for site in fleet.sites] == ["cloud"]


def test_links_take_what_stands_beside_their_type() -> None:
    fleet = built(
        "fleet.links.to_edge.type=5g_cells",
        "+fleet.links.to_edge.cells=3",
        "+fleet.links.to_cloud.latency={_target_: sim.fleet.latency.Gamma, mean_s: 0.02, cv: 0.5}",
        "+fleet.links.to_cloud.outages=[[5, 9]]",
        "+fleet.links.wan={type: infiniband_ndr, source: edge, target: cloud}",
    ).fleet
    edge, cloud, wan = fleet.links
    assert (edge.cells, edge.shared, edge.grant_period_s, edge.medium) == (3, True, 0.005, "mobile")
    assert isinstance(cloud.latency, Gamma)
    assert (cloud.latency_s, cloud.outages) == (0.0, ((5.0, 9.0),))
    assert (wan.up_bytes_per_s, wan.down_bytes_per_s, wan.latency_s, wan.shared) == (40e9, 40e9, 1.5e-5, True)


def test_network_energy_is_filled_in_by_medium_where_a_link_does_not_say() -> None:
    change = ("fleet.links.to_edge.type=wifi_lan_edge", "+fleet.links.to_cloud.energy_j_per_byte=1e-9")
    assert [link.energy_j_per_byte for link in built().fleet.links] == [None, None]
    assert [link.energy_j_per_byte for link in built("network_energy=low").fleet.links] == [2.4e-7, 2.4e-7]
    assert [link.energy_j_per_byte for link in built("network_energy=central", *change).fleet.links] == [None, 1e-9]
    assert [link.energy_j_per_byte for link in built("network_energy.fixed=2e-6").fleet.links] == [2e-6, 2e-6]
    assert built("network_energy=low").kinds["assumed"] == built().kinds["assumed"] + 3


def test_a_grid_by_the_hours_of_the_day_repeats_them() -> None:
    signal = built("fleet=solar_day").fleet.sites[0].intensity
    assert [signal.at(hour * 3600.0) for hour in (0, 12, 20, 24, 36)] == [330.0, 90.0, 400.0, 330.0, 90.0]
    shifted = built("fleet=solar_day", "start_utc='2024-06-01T10:00'").fleet.sites[0].intensity
    assert shifted.at(2 * 3600.0) == 90.0
    with pytest.raises(InputError, match="24 values"):
        built("fleet=single", "fleet.grid={hours:[1,2,3]}")


def test_an_hourly_grid_starts_where_the_run_does(tmp_path: Path) -> None:
    path = tmp_path / "grid_lca.csv"
    path.write_text("datetime_utc,AA\n2024-01-01 00:00:00,100\n2024-01-01 01:00:00,200\n2024-01-01 02:00:00,300\n")
    scenario = built("fleet=single", f"fleet.grid={{path:{path},zone:AA}}", "start_utc='2024-01-01T01:30'")
    signal = scenario.fleet.sites[0].intensity
    assert (signal.at(0.0), signal.at(1800.0), signal.next_change(0.0)) == (200.0, 300.0, 1800.0)
    assert scenario.inputs == (path,)


def test_weights_of_classes_become_the_mix() -> None:
    from sim.rng import Streams

    workload = built("slo=mixed", "workload=poisson", "workload.limit=4000").workload
    drawn = [int(code) for batch in workload.batches(Streams(0)) for code in batch.slo_class]
    assert sum(drawn) / len(drawn) == pytest.approx(0.3, abs=0.04)


# -- plug-ins


def test_a_plugin_of_a_listed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "myrouters.py").write_text(
        "class First:\n    def __init__(self, index=0):\n        self.index = index\n"
        "    def choose(self, request, fleet):\n        return fleet.pools[self.index]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = config_of() | {"router": {"_target_": "myrouters.First", "index": 1}}
    with pytest.raises(InputError, match="named by plugins"):
        build(config)
    scenario = build(config | {"plugins": ["myrouters"]})
    assert vars(scenario.router) == {"index": 1}
    with pytest.raises(InputError, match=r"router\.colour='red'.*keys here: index"):
        build(config | {"plugins": ["myrouters"], "router": {"_target_": "myrouters.First", "colour": "red"}})


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "simulate.Me",
        "sim",
        "",
        None,
        3,
        "sim..errors",
        "sim.errors.math.sqrt",
        "sim.hardware.catalogue.Path",
        "scenarios.cli.main",
        "scenarios.store.shutil.rmtree",
        "scenarios.run.datetime",
        "sim.errors.InputError.__init__",
        "${oc.env:HOME}",
    ],
)
def test_targets_that_are_refused(target: object) -> None:
    with pytest.raises(InputError, match=r"router\._target_"):
        locate("router._target_", target)


def test_targets_are_found_however_deep() -> None:
    node = {"a": [{"b": {"c": [{"_target_": "os.system"}]}}]}
    with pytest.raises(InputError, match=r"a\[0\]\.b\.c\[0\]\._target_='os\.system'"):
        check_targets(node, "")


def test_nested_targets_are_made_first() -> None:
    node = {"_target_": "sim.accounting.signal.Constant", "value": 3.0, "about": {"note": "kept out"}}
    made = instantiate({"x": [node], "y": 2}, "k")
    assert made["y"] == 2
    assert made["x"][0].at(0.0) == 3.0
    with pytest.raises(InputError, match=r"k\.value=None.*Constant needs it"):
        instantiate({"_target_": "sim.accounting.signal.Constant"}, "k")


# -- reading strictly


def test_a_section_refuses_what_nobody_asked_for() -> None:
    section = Section({"a": 1, "b": 2}, "top")
    assert section.need("a", integer()) == 1
    with pytest.raises(InputError, match=r"top\.b=2.*no such key.*keys here: a"):
        section.finish()


def test_whole_numbers() -> None:
    check = integer(1)
    assert check("k", 4.0) == 4
    for value in (True, "4", 0, 1.5, float("nan"), float("inf"), None, [1]):
        with pytest.raises(InputError, match="k="):
            check("k", value)


def test_nearest_keys_are_named() -> None:
    assert unknown_key("replica", ["tp", "replicas"]).startswith("no such key; did you mean replicas?")

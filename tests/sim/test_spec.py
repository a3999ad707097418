"""A library user's mistakes: whatever is not what a field takes is one clear error that names it, at birth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sim.accounting.cost import Rent
from sim.accounting.signal import Constant
from sim.errors import InputError
from sim.fleet.engine_settings import EngineSettings
from sim.fleet.link import Link
from sim.fleet.spec import Fleet, Host, Pool, Site
from sim.hardware import catalogue
from sim.routing.static import CloudOnly, RoundRobin
from sim.simulation import run
from sim.workload.arrivals import Poisson
from sim.workload.lengths import Fixed
from sim.workload.synthetic import SyntheticWorkload

MODEL, XPU = catalogue.model("llama_3_2_1b"), catalogue.xpu("l4")


def pool(**changes: Any) -> Pool:
    fields: dict[str, Any] = {"name": "p", "model": MODEL, "xpu": XPU}
    return Pool(**fields | changes)


def site(**changes: Any) -> Site:
    fields: dict[str, Any] = {"name": "s", "kind": "cloud", "pools": (pool(),)}
    return Site(**fields | changes)


def link(**changes: Any) -> Link:
    fields: dict[str, Any] = {"name": "l", "source": "client", "target": "s"}
    return Link(**fields | changes)


WRONG: list[tuple[Callable[..., Any], str, str, list[Any]]] = [
    *(
        (EngineSettings, "engine.", key, ["a", 1.5, 2.0, True, 0, -1, None, math.nan])
        for key in ("max_num_seqs", "max_num_batched_tokens", "block_size")
    ),
    (EngineSettings, "engine.", "kv_blocks", ["a", 2.5, True, 1]),
    (EngineSettings, "engine.", "max_model_len", ["a", 2.5, True, 1]),
    (EngineSettings, "engine.", "gpu_memory_utilization", ["a", True, None, 0, 1.1, math.nan]),
    (EngineSettings, "engine.", "front_end_s", ["a", None, -1, math.inf]),
    (EngineSettings, "engine.", "padding", [8, "8", ["a"], [2.5], [True], [0], [8, 4], [4, 4]]),
    *((EngineSettings, "engine.", key, [1, "yes", None]) for key in ("async_scheduling", "prefix_caching")),
    (Host, "host.", "power_w", ["x", None, True, -1, math.nan]),
    (Host, "host.", "embodied", [120.0]),
    *((pool, "pools.p.", key, [2.5, 2.0, "2", True, None, 0]) for key in ("replicas", "tp")),
    (pool, "pools.p.", "model", ["llama_3_2_1b", None, XPU]),
    (pool, "pools.p.", "xpu", ["l4", None, ("l4",), MODEL]),
    (pool, "pools.p.", "precision", [None, 16, ["bf16"]]),
    (pool, "pools.p.", "engine", [None, {"max_num_seqs": 4}, EngineSettings]),
    (pool, "pools.p.", "host", ["hgx_8gpu", Host]),
    (pool, "pools.p.", "cost", ["rent", 2.5, Rent]),
    (pool, "pools.p.", "embodied", ["act", 120.0]),
    (pool, "pools.p.", "boot_s", ["a", None, -1, math.inf]),
    (pool, "pools.p.", "balancer", [RoundRobin(), ["round_robin"]]),
    (pool, "pools.p.", "timing", [None, "roofline"]),
    (pool, "pools.", "name", [None, 3]),
    (site, "sites.s.", "pue", ["a", None, True, 0.9, math.inf]),
    (site, "sites.s.", "intensity", [400.0, "us_cal_ciso", None, Constant]),
    (site, "sites.s.", "kind", ["moon", None, ["cloud"]]),
    (site, "sites.s.", "pools", [pool(), None, "p", ["p"]]),
    *(
        (link, "links.l.", key, ["a", None, True, -1, math.nan, math.inf])
        for key in ("latency_s", "latency_sigma", "prompt_bytes_per_token", "chunk_bytes")
    ),
    *((link, "links.l.", key, ["a", None, True, 0, math.nan]) for key in ("up_bytes_per_s", "down_bytes_per_s")),
    (link, "links.l.", "energy_j_per_byte", ["a", True, -1, math.inf]),
    (link, "links.l.", "shared", [1, None, "yes"]),
    (link, "links.", "target", [None, site()]),
    (Fleet, "fleet.", "sites", [site(), None, "s", ["s"], [pool()]]),
]


@pytest.mark.parametrize(
    ("make", "prefix", "key", "value"),
    [(make, prefix, key, value) for make, prefix, key, values in WRONG for value in values],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_value_is_named(make: Callable[..., Any], prefix: str, key: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        make(**{key: value})
    assert caught.value.key.startswith(f"{prefix}{key}")
    assert len(str(caught.value)) < 500


def test_links_of_a_fleet_are_links() -> None:
    for links in (link(), ["l"]):
        with pytest.raises(InputError, match=r"fleet\.links"):
            Fleet((site(),), links)  # type: ignore[arg-type]


def test_what_is_right_passes() -> None:
    """Numbers of numpy, lists for tuples and an endless capacity are no mistakes."""
    engine = EngineSettings(max_num_seqs=np.int64(8), padding=[1, np.int64(2)], front_end_s=0)  # type: ignore[arg-type]
    assert engine.padding == (1, 2)
    made = site(pools=[pool(replicas=np.int64(2), engine=engine)], pue=1, intensity=Constant(np.float64(5)))
    assert Fleet([made], [link(up_bytes_per_s=math.inf)]).pools[0].replicas == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("fleet", site()),
        ("fleet", None),
        ("fleet", "hybrid"),
        ("workload", None),
        ("workload", SyntheticWorkload),
        ("workload", "poisson"),
        ("router", None),
        ("router", CloudOnly),
        ("router", "cloud_only"),
    ],
)
def test_run_names_the_argument_that_is_of_the_wrong_type(argument: str, value: Any) -> None:
    workload = SyntheticWorkload(Poisson(2.0), Fixed(10, 10), limit=2)
    given: dict[str, Any] = {"fleet": Fleet((site(),)), "workload": workload, "router": CloudOnly()} | {argument: value}
    with pytest.raises(InputError, match=f"^{argument}="):
        run(**given)


def test_an_error_shows_the_beginning_of_a_large_object_and_texts_whole() -> None:
    assert len(str(InputError("fleet", site(), "a Fleet"))) < 300
    path = "folder/" * 50
    assert path in str(InputError("path", path, "a file"))

"""Synthetic results, small and plausible, whose parts add up: the analysis is tested without the engine."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim.qoe import SLOClass, slo_met, token_qoe_v1, token_qoe_v2
from sim.results import REQUEST_COLUMNS, STATUSES, Columns, GapSample, PoolTotals, Result
from sim.units import JOULES_PER_KWH

CLASSES = (SLOClass("chat", ttft_s=1.0, tpot_s=0.05), SLOClass("batch", ttft_s=10.0, tpot_s=0.2))
SPEED = ((0.30, 0.030), (0.12, 0.012))  # typical TTFT and TPOT of the edge and of the cloud pool [s]
POWER_W = (150.0, 600.0)
IDLE_W = (60.0, 180.0)
INTENSITY = (450.0, 30.0)
EMBODIED_G_PER_S, USD_PER_S = (0.0008, 0.004), (0.0002, 0.0012)
BINS = 60


def make_result(requests: int = 500, seed: int = 1, unknown: bool = False, end_s: float | None = None) -> Result:
    """A run over an edge and a cloud pool. `unknown`: the cloud discloses neither embodied carbon nor cost."""
    rng = np.random.default_rng(seed)
    end = requests / 5.0 if end_s is None else end_s
    table = _requests(rng, requests, end)
    pools = [_totals(table, index, end, unknown and index == 1) for index in (0, 1)]
    _provision(table, pools, unknown)
    gaps = {
        (pool, slo): _gaps(rng, table, pool, slo)
        for pool in (0, 1)
        for slo in range(len(CLASSES))
        if ((table["pool"] == pool) & (table["slo_class"] == slo)).any()
    }
    return Result(
        requests=table,
        timeline=_timeline(table, pools, end),
        spans=None,
        pools=pools,
        slo_classes=CLASSES,
        gaps=gaps,
        end_s=end,
        warmup_s=0.1 * end,
        horizon_s=math.inf,
        observed_s=0.9 * end,
        seed=seed,
        wall_s=0.5,
    )


def _requests(rng: np.random.Generator, n: int, end: float) -> Columns:
    table: Columns = {}
    for name, (dtype, _, _) in REQUEST_COLUMNS.items():
        table[name] = np.full(n, np.nan) if dtype == "float64" else np.zeros(n, dtype=dtype)
    arrival = np.sort(rng.uniform(0.0, 0.95 * end, n))
    slow = 1.0 + 2.0 * np.sin(np.pi * arrival / end) ** 4
    pool = (rng.random(n) < 0.35).astype(np.int16)
    output = np.maximum(1, rng.lognormal(4.8, 0.9, n)).astype(np.int64)
    ttft = np.array(SPEED)[pool, 0] * slow * rng.lognormal(0.0, 0.4, n)
    tpot = np.array(SPEED)[pool, 1] * slow * rng.lognormal(0.0, 0.2, n)
    table |= {
        "request_id": np.arange(n),
        "arrival_s": arrival,
        "slo_class": (rng.random(n) < 0.3).astype(np.int16),
        "pool": pool,
        "counted": arrival >= 0.1 * end,
        "prompt_tokens": np.maximum(1, rng.lognormal(6.5, 0.8, n)).astype(np.int64),
        "output_tokens": output,
        "ttft_s": ttft,
        "tpot_s": np.where(output > 1, tpot, np.nan),
        "e2e_s": ttft + (output - 1) * tpot,
        "queue_s": 0.3 * ttft,
        "itl_max_s": np.where(output > 1, 3.0 * tpot, np.nan),
    }
    _judge(table)
    failed = rng.random(n) < 0.02
    table["status"][failed] = STATUSES.index("failed")
    table["pool"][np.arange(n) % 97 == 96] = -1
    table["status"][table["pool"] < 0] = STATUSES.index("rejected")
    lost = table["status"] != 0
    for name in ("ttft_s", "tpot_s", "e2e_s", "queue_s", "itl_max_s"):
        table[name][lost] = np.nan
    table["token_qoe_v2"][lost] = 0.0
    table["token_qoe"][lost], table["slo_met"][lost], table["output_tokens"][lost] = 0.0, False, 0
    return _energy(table, output * tpot / 24.0)


def _judge(table: Columns) -> None:
    bounds = [np.array([getattr(slo, name) for slo in CLASSES]) for name in ("ttft_s", "tpot_s", "e2e_s")]
    times = [table[name] for name in ("ttft_s", "tpot_s", "e2e_s")]
    table["slo_met"] = slo_met(*times, *(bound[table["slo_class"]] for bound in bounds))
    table["token_qoe"] = token_qoe_v1(table["ttft_s"], table["e2e_s"], table["output_tokens"], 1.0, 4.8)
    table["token_qoe_v2"] = token_qoe_v2(table["ttft_s"], table["output_tokens"], 1.0, 4.8)


def _energy(table: Columns, xpu_s: np.ndarray) -> Columns:
    pool, failed = table["pool"], table["status"] == STATUSES.index("failed")
    served = pool >= 0
    xpu_s = np.where(served, xpu_s, 0.0)
    energy = xpu_s * np.array(POWER_W)[pool]
    table["xpu_s"] = xpu_s
    table["energy_j"] = np.where(failed, 0.0, energy)
    table["energy_prefill_j"] = 0.2 * table["energy_j"]
    table["energy_wasted_j"] = np.where(failed, energy, 0.0)
    table["energy_network_j"] = np.where(served, 2.0, 0.0)
    table["carbon_operational_g"] = energy * np.array(INTENSITY)[pool] / JOULES_PER_KWH
    table["carbon_embodied_g"] = xpu_s * np.array(EMBODIED_G_PER_S)[pool]
    table["cost_usd"] = xpu_s * np.array(USD_PER_S)[pool]
    table["cost_prefill_usd"] = 0.2 * table["cost_usd"]
    return table


def _totals(table: Columns, index: int, end: float, undisclosed: bool) -> PoolTotals:
    mine = table["pool"] == index
    busy, pue = float(table["xpu_s"][mine].sum()), (1.4, 1.1)[index]
    idle = 2.0 * end - busy
    facility = {
        "active": float(table["energy_j"][mine].sum()),
        "wasted": float(table["energy_wasted_j"][mine].sum()),
        "idle": idle * IDLE_W[index],
        "boot": 0.0,
        "network": float(table["energy_network_j"][mine].sum()),
    }
    embodied = {"active": busy * EMBODIED_G_PER_S[index], "idle": idle * EMBODIED_G_PER_S[index]}
    high = sum(embodied.values())
    return PoolTotals(
        name=("edge_l4", "cloud_h100")[index],
        site=("lab", "region")[index],
        site_kind=("edge", "cloud")[index],
        model="llama_3_1_8b",
        xpu=("l4", "h100_sxm")[index],
        replicas=2,
        xpus=2,
        kv_blocks=(1500, 20000)[index],
        kv_groups=1,
        block_size=16,
        pue=pue,
        provisioned_s=2.0 * end,
        busy_s=busy,
        idle_s=idle,
        it_energy_j={part: joules / (1.0 if part == "network" else pue) for part, joules in facility.items()},
        facility_energy_j=facility,
        carbon_operational_g={part: j * INTENSITY[index] / JOULES_PER_KWH for part, j in facility.items()},
        carbon_embodied_g=None if undisclosed else embodied,
        carbon_embodied_range_g=None if undisclosed else (0.5 * high, high, 2.0 * high),
        cost_usd=None if undisclosed else {"active": busy * USD_PER_S[index], "idle": idle * USD_PER_S[index]},
        bytes_up=1e6,
        bytes_down=2e6,
        intensity_mean=INTENSITY[index],
        intensity_basis="lca",
        intensity_source="a test",
        embodied_boundary="" if undisclosed else "die+memory",
        cost_basis="" if undisclosed else "rent",
        incomplete=("embodied carbon unknown", "cost unknown") if undisclosed else (),
        steps=1000,
        output_tokens=int(table["output_tokens"][mine].sum()),
    )


def _provision(table: Columns, pools: list[PoolTotals], unknown: bool) -> None:
    """Spread each pool's idle energy, carbon and cost over its requests by active xPU time."""
    spread = {
        "energy_provisioned_j": "energy_j",
        "carbon_operational_provisioned_g": "carbon_operational_g",
        "carbon_embodied_provisioned_g": "carbon_embodied_g",
        "cost_provisioned_usd": "cost_usd",
    }
    for target, source in spread.items():
        table[target] = table[source].copy()
    for index, pool in enumerate(pools):
        mine = table["pool"] == index
        share = table["xpu_s"][mine] / table["xpu_s"][mine].sum()
        table["energy_provisioned_j"][mine] += share * pool.facility_energy_j["idle"]
        table["carbon_operational_provisioned_g"][mine] += share * pool.carbon_operational_g["idle"]
        for name, parts in (("carbon_embodied", pool.carbon_embodied_g), ("cost", pool.cost_usd)):
            target = name + ("_provisioned_usd" if name == "cost" else "_provisioned_g")
            own = name + ("_usd" if name == "cost" else "_g")
            if parts is None:
                table[own][mine] = table[target][mine] = np.nan
            else:
                table[target][mine] += share * parts["idle"]
    assert unknown or not np.isnan(table["cost_provisioned_usd"]).any()


def _gaps(rng: np.random.Generator, table: Columns, pool: int, slo: int) -> GapSample:
    mine = (table["pool"] == pool) & (table["slo_class"] == slo) & (table["status"] == 0)
    value = np.sort(SPEED[pool][1] * rng.lognormal(0.3, 0.5, 300))
    return GapSample(value, rng.integers(1, 2 + int(table["output_tokens"][mine].sum()) // 150, len(value)))


def _timeline(table: Columns, pools: list[PoolTotals], end: float) -> Columns:
    edges = np.linspace(0.0, end, BINS + 1)
    rows: dict[str, list[np.ndarray]] = {}
    for index, pool in enumerate(pools):
        arrivals, _ = np.histogram(table["arrival_s"][table["pool"] == index], edges)
        load = arrivals / max(1.0, arrivals.max())
        shape = 0.2 + load
        joules = shape / shape.sum() * (sum(pool.facility_energy_j.values()) - pool.facility_energy_j["network"])
        wave = pool.intensity_mean * (1.0 + 0.3 * np.sin(np.linspace(0.0, 3.0, BINS)))
        block = {
            "pool": np.full(BINS, index, dtype=np.int16),
            "t_s": edges[:-1],
            "bin_s": np.diff(edges),
            "power_w": joules / np.diff(edges),
            "energy_j": joules,
            "intensity_g_per_kwh": wave,
            "carbon_g": joules / JOULES_PER_KWH * wave,
            "queue": 20.0 * load**3,
            "running": 30.0 * load,
            "kv_use": np.minimum(1.0, 0.1 + 0.9 * load),
            "replicas": np.full(BINS, float(pool.replicas)),
            "arrivals": arrivals.astype(np.int64),
            "output_tokens": arrivals * 120.0,
        }
        for name, values in block.items():
            rows.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in rows.items()}


@pytest.fixture(scope="session")
def result() -> Result:
    """500 requests over two pools and two SLO classes."""
    return make_result()


@pytest.fixture(scope="session")
def partly_unknown() -> Result:
    """The same where the cloud discloses neither embodied carbon nor cost."""
    return make_result(unknown=True)

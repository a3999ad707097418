"""The five resources of an LLM service on one page: compute, memory, energy, money and network.

Source: the division is that of "Beyond Efficiency: A Systematic Survey of Resource-Efficient Large Language Models"
(arXiv 2401.00625).
"""

from __future__ import annotations

from analysis import footprint
from sim.results import Result
from sim.units import GB, JOULES_PER_KWH, SECONDS_PER_HOUR


def of(result: Result, output_tokens: int) -> dict[str, dict[str, dict[str, float | None]]]:
    """Each resource: {name with unit: {absolute, per_1000_tokens}}; by output tokens of completed requests.

    Shares and peaks have no amount per token. None is unknown. Compute and memory are those of hardware that one has
    or rents; what an API computes is not counted.
    """
    pools, kilo = [pool for pool in result.pools if not pool.provider], output_tokens / 1e3
    flops = [pool.useful_flop for pool in pools]
    flop = None if any(each is None for each in flops) else sum(each for each in flops if each is not None)
    peaks = [(pool.peak_flop_per_s, pool.xpus / max(pool.replicas, 1) * pool.busy_s) for pool in pools]
    possible = sum(peak * busy for peak, busy in peaks if peak is not None)
    all_known = all(peak is not None for peak, _ in peaks)
    used = footprint.of_all(result.pools)

    def amount(value: float | None, spread: bool = True) -> dict[str, float | None]:
        per = value / kilo if value is not None and spread and kilo > 0.0 else None
        return {"absolute": value, "per_1000_tokens": per}

    mfu = flop / possible if flop is not None and all_known and possible > 0.0 else None
    return {
        "compute": {
            "useful work [TFLOP]": amount(None if flop is None else flop / 1e12),
            "MFU while busy, of the 16-bit peak [0 to 1]": amount(mfu, spread=False),
            "provisioned [xPU h]": amount(sum(pool.provisioned_s for pool in pools) / SECONDS_PER_HOUR),
            "busy [xPU h]": amount(sum(busy for _, busy in peaks) / SECONDS_PER_HOUR),
        },
        "memory": {
            "weights [GB]": amount(sum(pool.weight_bytes for pool in pools) / GB, spread=False),
            "KV cache there is [GB]": amount(sum(pool.kv_bytes for pool in pools) / GB, spread=False),
            "KV cache at its peak [GB]": amount(_kv_peak(result) / GB, spread=False),
        },
        "energy": {
            "facility [kWh]": amount(footprint.total(used.facility_j, JOULES_PER_KWH)),
            "IT [kWh]": amount(footprint.total(used.it_j, JOULES_PER_KWH)),
        },
        "money": {"cost [USD]": amount(footprint.total(used.cost_usd))},
        "network": {
            "up [MB]": amount(sum(pool.bytes_up for pool in result.pools) / 1e6),
            "down [MB]": amount(sum(pool.bytes_down for pool in result.pools) / 1e6),
        },
    }


def _kv_peak(result: Result) -> float:
    """KV cache in use in the fullest time bin [bytes]: a mean over the bin."""
    timeline, peak = result.timeline, {}
    for index, pool in enumerate(result.pools):
        if pool.provider:
            continue
        mine = timeline["pool"] == index
        for t_s, use in zip(timeline["t_s"][mine].tolist(), timeline["kv_use"][mine].tolist()):
            peak[t_s] = peak.get(t_s, 0.0) + use * pool.kv_bytes
    return max(peak.values(), default=0.0)

"""Who caused what a fleet drew, emitted and cost: shares of tenants, SLO classes and models, and what nobody asked for.

Shares hold what requests took of busy replicas. They and the common parts (idle, boot, network, and work that the end
of the run cut short) sum to the totals, to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.results import STATUSES, Result
from sim.units import JOULES_PER_KWH

#: amount -> (columns of its shares, totals of a pool, unit of the summary)
_AMOUNTS: dict[str, tuple[tuple[str, ...], str, float]] = {
    "energy_kwh": (("energy_j", "energy_wasted_j"), "facility_energy_j", JOULES_PER_KWH),
    "carbon_operational_kg": (("carbon_operational_g",), "carbon_operational_g", 1e3),
    "carbon_embodied_kg": (("carbon_embodied_g",), "carbon_embodied_g", 1e3),
    "cost_usd": (("cost_usd",), "cost_usd", 1.0),
}
_COMPLETED = STATUSES.index("completed")
_ROUNDING = 1e-12  #: of what was busy: less than that is no part of its own
_COMMON = ("idle", "boot", "network", "on_site")


def of(result: Result) -> dict[str, Any]:
    """The table: `by_tenant`, `by_slo_class`, `by_model` (each: shares by name), `common` parts and `total`.

    In every amount, the shares of any one of the three tables and the `common` parts sum to the total. None is unknown.
    """
    column = result.requests
    pool = column["pool"].astype(np.int64)
    models = sorted({each.model for each in result.pools})
    code = np.array([models.index(each.model) for each in result.pools] or [0])
    tenants = column["tenant"].astype(np.int64) if "tenant" in column else np.zeros(len(result), dtype=np.int64)
    classes = [slo.name for slo in result.slo_classes]
    served = pool >= 0
    totals = {name: _total(result, name) for name in _AMOUNTS}
    shares = {name: sum(column[each] for each in columns) for name, (columns, _, _) in _AMOUNTS.items()}
    names = [str(tenant) for tenant in range(int(tenants.max()) + 1 if len(tenants) else 1)]
    return {
        "by_tenant": _shares(result, names, tenants, served, shares, totals),
        "by_slo_class": _shares(result, classes, column["slo_class"].astype(np.int64), served, shares, totals),
        "by_model": _shares(result, models, code[pool], served, shares, totals),
        "common": _common(result, served, shares, totals),
        "total": totals,
    }


def _total(result: Result, name: str) -> float | None:
    _, field, unit = _AMOUNTS[name]
    parts = [getattr(pool, field) for pool in result.pools]
    if any(part is None for part in parts):
        return None
    amount = float(sum(sum(part.values()) for part in parts)) / unit
    return None if np.isnan(amount) else amount


def _shares(
    result: Result,
    names: list[str],
    codes: npt.NDArray[np.int64],
    served: npt.NDArray[np.bool_],
    shares: Mapping[str, Any],
    totals: Mapping[str, float | None],
) -> dict[str, Any]:
    """Requests, output tokens and amounts by name, of the requests that some pool took."""
    column, size = result.requests, len(names)
    done = served & (column["status"] == _COMPLETED)
    asked = np.bincount(codes[served], minlength=size)
    tokens = np.bincount(codes[done], weights=column["output_tokens"][done], minlength=size)
    table: dict[str, Any] = {
        name: {"requests": int(asked[i]), "output_tokens": int(tokens[i])} for i, name in enumerate(names)
    }
    for amount, (_, _, unit) in _AMOUNTS.items():
        known = totals[amount] is not None
        sums = np.bincount(codes[served], weights=shares[amount][served], minlength=size) / unit if known else None
        for i, name in enumerate(names):
            table[name][amount] = None if sums is None else float(sums[i])
    return {name: row for name, row in table.items() if row["requests"]}


def _common(
    result: Result, served: npt.NDArray[np.bool_], shares: Mapping[str, Any], totals: Mapping[str, float | None]
) -> dict[str, Any]:
    """Parts that no request caused alone; `cut_off` is what was busy for nobody's share."""
    common = _COMMON if result.sites else _COMMON[:-1]  # what plants and batteries changed: only where there are any
    rows: dict[str, Any] = {part: {} for part in (*common, "cut_off")}
    for amount, (_, field, unit) in _AMOUNTS.items():
        if totals[amount] is None:
            for row in rows.values():
                row[amount] = None
            continue
        parts = [getattr(pool, field) for pool in result.pools]
        for name in common:
            rows[name][amount] = sum(part.get(name, 0.0) for part in parts) / unit
        busy = sum(part.get("active", 0.0) + part.get("wasted", 0.0) for part in parts)
        left = busy - float(shares[amount][served].sum())
        rows["cut_off"][amount] = left / unit if abs(left) > _ROUNDING * abs(busy) else 0.0
    return rows

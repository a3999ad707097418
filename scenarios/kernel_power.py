"""Measured power of single kernels against the power law of the catalogue: joules of a kernel.

A kernel draws static power, and active power or power by its MFU and MBU, whichever is more. A short one is seen to
draw less: the meter averages over a second, of which it fills a part, and its blocks still start and drain.
All but static power grows as t / (t + 5 us).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from scenarios.deployment import xpu_named
from scenarios.fitting import Floats
from scenarios.table_file import Row, need, read_table
from sim.errors import InputError
from sim.hardware import catalogue
from sim.hardware.xpu import XPU

RAMP_S = 5e-6  #: length at which half of a kernel's power is seen, chosen on kernels of H200 and B200 [s]
LONG_S = 50e-6  #: kernels from here on are summarised apart: meters have settled [s]
_FIELDS = {
    "xpu": ("xpu", "system", "gpu_model"),
    "op": ("op", "kernel"),
    "latency_ms": ("latency_ms",),
    "latency_us": ("latency_us", "time_us"),
    "power_w": ("power_w", "power"),
    "mfu": ("mfu",),
    "mbu": ("mbu",),
    **{name: (name,) for name in ("m", "n", "k", "batch", "isl", "step", "heads", "kv_heads", "head_dim")},
}
_HIGHEST = 1.05  #: utilisation above which a row's shape cannot be what ran, such as attention with a window


@dataclass(frozen=True, slots=True)
class Kernels:
    """Kernels of one kind on one xPU.

    Attributes:
        xpu, op: chip, and the kind as the file names it.
        seconds: length of each [s]; mfu, mbu: its utilisations.
        power_w: its measured power [W].
    """

    xpu: XPU
    op: str
    seconds: Floats
    mfu: Floats
    mbu: Floats
    power_w: Floats

    def errors(self, xpu: XPU | None = None) -> Floats:
        """Signed relative errors of the joules of each kernel, with the coefficients of `xpu` if one is given."""
        return np.asarray(self.simulated_w(xpu or self.xpu) / self.power_w - 1.0)

    def simulated_w(self, xpu: XPU) -> Floats:
        """Power by the law [W]."""
        power = xpu.power
        work = np.maximum(power.active_w, power.compute_w * self.mfu + power.memory_w * self.mbu)
        drawn = np.minimum(power.static_w + work, min(xpu.tdp_w, power.peak_w or xpu.tdp_w))
        return np.asarray(power.static_w + (drawn - power.static_w) * self.seconds / (self.seconds + RAMP_S))


@dataclass(frozen=True, slots=True)
class KernelTable:
    """A whole file: kernels by xPU and kind, and why other rows were left out."""

    kernels: list[Kernels]
    left_out: list[str]


def is_kernels(path: Path, columns: Mapping[str, str]) -> bool:
    """Whether a file holds times of kernels rather than of models."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = set(next(csv.reader(file), []))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False  # the reader of the file says why
    timed = {"latency_ms", "latency_us"} & (header | set(columns))
    return bool(timed) and not ({"model", "Model", "model_id"} & header) and "model" not in columns


def read_kernel_power(path: Path, columns: Mapping[str, str], search: Sequence[Path] = ()) -> KernelTable:
    """Read a file: xpu, op, latency, power, and mfu with mbu or the shape of a GEMM or of attention.

    Raises:
        InputError: something in the file cannot be used, or no row of it can be compared.
    """
    rows = read_table(path, _FIELDS, columns)
    need(rows, ["xpu", "power_w"], path)
    if "latency_us" not in rows[0].names:
        need(rows, ["latency_ms"], path)
    named = cache(lambda hint: catalogue.xpu(xpu_named(hint, search), search))
    found: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    impossible = 0
    for row in rows:
        xpu = named(row.text("xpu"))
        op = row.text("op") if "op" in row else "kernel"
        seconds = _seconds(row)
        mfu, mbu = _utilisation(row, op, xpu, seconds)
        if mfu <= _HIGHEST and mbu <= _HIGHEST:
            found.setdefault((xpu.id, op), []).append((seconds, mfu, mbu, _power(row, xpu)))
        else:
            impossible += 1
    if not found:
        raise InputError("energy", str(path), "kernels whose utilisation is at most 1")
    kernels = [Kernels(named(xpu), op, *np.array(values).T) for (xpu, op), values in found.items()]
    reason = "utilisation above 1 by their shape: a window, or memory that caches hold"
    return KernelTable(kernels, [f"{impossible} rows: {reason}"] if impossible else [])


def _seconds(row: Row) -> float:
    return row.positive("latency_us") * 1e-6 if "latency_us" in row else row.positive("latency_ms") * 1e-3


def _power(row: Row, xpu: XPU) -> float:
    power_w = row.positive("power_w")
    if power_w > 1.5 * xpu.tdp_w:
        raise InputError(row.names["power_w"], power_w, f"watts of one {xpu.id}, at most {xpu.tdp_w:g}", row.where)
    return power_w


def _utilisation(row: Row, op: str, xpu: XPU, seconds: float) -> tuple[float, float]:
    """MFU and MBU of a kernel in 16 bit: as the row has them, else by its shape."""
    if "mfu" in row and "mbu" in row:
        return row.not_negative("mfu"), row.not_negative("mbu")
    flops, nbytes = _work(row, op)
    peak = xpu.peak_flops.get("bf16") or xpu.flops("fp16")
    return flops / seconds / peak, nbytes / seconds / xpu.bandwidth_bytes_per_s


def _work(row: Row, op: str) -> tuple[float, float]:
    """FLOP and bytes, each value of 2 bytes, of a GEMM, of causal attention over prompts, or of decode attention."""
    if all(key in row for key in ("m", "n", "k")):
        m, n, k = (row.positive(key) for key in ("m", "n", "k"))
        return 2.0 * m * n * k, 2.0 * (m * k + k * n + m * n)
    shape = ("batch", "isl", "heads", "kv_heads", "head_dim")
    if not all(key in row for key in shape):
        raise InputError("columns", None, f"mfu and mbu, or m, n, k, or {', '.join(shape)}", row.where)
    batch, isl, heads, kv, dim = (row.positive(key) for key in shape)
    if "context" in op or "prefill" in op:
        return 2.0 * batch * isl**2 * heads * dim, 4.0 * batch * isl * (heads + kv) * dim
    context = isl + (row.not_negative("step") if "step" in row else 0.0)
    return 4.0 * batch * context * heads * dim, 4.0 * batch * context * kv * dim

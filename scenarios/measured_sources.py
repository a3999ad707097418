"""Measurements as `scenarios.fitting` compares them: replayed runs, and kernel times put together to whole steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenarios.deployment import serve
from scenarios.fitting import Floats, with_coefficients
from scenarios.measured import Measured
from scenarios.table_file import read_table
from sim.errors import InputError
from sim.fleet.spec import Pool
from sim.hardware import catalogue
from sim.hardware.deployment import Deployment
from sim.hardware.model import Model
from sim.hardware.timing import RooflineTiming
from sim.hardware.xpu import XPU

Mask = npt.NDArray[np.bool_]

_QUANTILES = np.linspace(5.0, 95.0, 19)
_LEAST_S = 1e-6  #: stands for a time of 0 where a logarithm is taken [s]
_TWICE = ("layernorm",)  #: dense kernels that a layer runs twice: before attention and before the MLP
_ONCE = ("embedding", "final_layernorm")  #: dense kernels that a step runs once, not once a layer
_LONGEST_CONTEXT = 8192  #: of the kernel times taken [tokens]
#: Beyond which caches do not hold the KV of a batch, as they do not in a model of many layers [tokens].
_SHORTEST_CONTEXT = 512
_MOST_CONTEXT = 65_536  #: of a batch: tables go on to batches that no memory holds [tokens]
_MOST_ROWS = 100  #: kernel steps taken of each kind, drawn at random: times of neighbours say the same


@dataclass(frozen=True, slots=True)
class RunSource:
    """A measured run, replayed with other coefficients.

    Requests are compared by quantiles: which of them a full engine preempts is chance, how many and when is not.

    Attributes:
        name: what it is called; record, pool: the run.
        held_out: the requests that are not fitted.
    """

    name: str
    record: Measured
    pool: Pool
    held_out: Mask

    @property
    def tp(self) -> int:
        """Tensor-parallel degree."""
        return self.pool.tp

    def residuals(self, xpu: XPU) -> Floats:
        """See `Source`: 19 quantiles of TPOT and of E2E."""
        parts = []
        for measured, simulated in self._pairs(xpu, ~self.held_out)[:2]:
            ratio = np.percentile(simulated, _QUANTILES) / np.percentile(measured, _QUANTILES)
            parts.append(np.log(np.maximum(ratio, _LEAST_S)))
        return np.concatenate(parts)

    def errors(self, xpu: XPU, held_out: bool) -> dict[str, float]:
        """See `Source`: means and a high percentile."""
        tpot, e2e, ttft = self._pairs(xpu, self.held_out if held_out else ~self.held_out)
        return {
            "TPOT mean": float(tpot[1].mean() / tpot[0].mean()) - 1.0,
            "TPOT p90": float(np.percentile(tpot[1], 90) / np.percentile(tpot[0], 90)) - 1.0,
            "E2E mean": float(e2e[1].mean() / e2e[0].mean()) - 1.0,
            "E2E p90": float(np.percentile(e2e[1], 90) / np.percentile(e2e[0], 90)) - 1.0,
            "TTFT mean": float(ttft[1].mean() / ttft[0].mean()) - 1.0,
        }

    def _pairs(self, xpu: XPU, share: Mask) -> list[tuple[Floats, Floats]]:
        """Measured and simulated TPOT, E2E and TTFT of some requests."""
        column = serve(replace(self.pool, xpu=xpu), self.record.requests).requests
        several = share & (self.record.requests.output > 1)
        return [
            (self.record.tpot_s[several], column["tpot_s"][several]),
            (self.record.e2e_s[share], column["e2e_s"][share]),
            (self.record.ttft_s[share], column["ttft_s"][share]),
        ]


@dataclass(frozen=True, slots=True)
class KernelSource:
    """Kernel times of one model, added up to steps over all of its layers.

    Attributes:
        name: what it is called; tp: how the kernels were sharded.
        model, precision: what they belong to.
        decoding, context, prefill, cached: sequences that decode and the context of each, prompt tokens and the tokens
            before them, by step.
        seconds: what its kernels take together, without collectives [s].
        held_out: the steps that are not fitted.
    """

    name: str
    tp: int
    model: Model
    precision: str
    decoding: Floats
    context: Floats
    prefill: Floats
    cached: Floats
    seconds: Floats
    held_out: Mask

    def residuals(self, xpu: XPU) -> Floats:
        """See `Source`: a residual a step."""
        return self._ratios(xpu)[~self.held_out]

    def errors(self, xpu: XPU, held_out: bool) -> dict[str, float]:
        """See `Source`: mean of steps that decode, of those that prefill, and of the absolute errors of all."""
        ratios = np.exp(self._ratios(xpu)) - 1.0
        share = self.held_out if held_out else ~self.held_out
        decode = share & (self.prefill == 0)
        return {
            "decode steps, mean": float(ratios[decode].mean()) if decode.any() else float("nan"),
            "prefill steps, mean": float(ratios[share & ~decode].mean()) if (share & ~decode).any() else float("nan"),
            "steps, mean absolute": float(np.abs(ratios[share]).mean()),
        }

    def _ratios(self, xpu: XPU) -> Floats:
        """Logarithms of simulated over measured time."""
        if self.tp > 1:  # kernel times know no collectives
            xpu = with_coefficients(xpu, {"link_bytes_per_s": 1e30, "link_latency_s": 0.0})
        timing = RooflineTiming(Deployment(self.model, xpu, self.tp, self.precision))
        steps = zip(self.decoding.tolist(), self.context.tolist(), self.prefill.tolist(), self.cached.tolist())
        simulated = []
        for n, context, tokens, cached in steps:
            cost = timing.step(int(n), int(tokens), int(tokens > 0))
            pairs = tokens * (cached + 0.5 * (tokens + 1.0))
            simulated.append(cost.fixed_s + cost.tau * n * context + timing.rho * pairs)
        return np.log(np.array(simulated) / self.seconds)


def read_kernels(path: Path, share: float, rng: np.random.Generator, search: Sequence[Path] = ()) -> KernelSource:
    """Read a folder of kernel times: dense.csv, per_sequence.csv, attention.csv and meta.yaml.

    Args:
        path: the folder; its name ends in ``tpN`` where meta.yaml lists several degrees.
        share: of the steps, to be held out.
        rng: draws them.
        search: further folders of the catalogue.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    for name in ("meta.yaml", "dense.csv", "per_sequence.csv", "attention.csv"):
        if not (path / name).is_file():
            raise InputError("kernels", str(path), f"a folder with kernel times; {name} is missing")
    meta = _meta(path / "meta.yaml")
    model = catalogue.model(str(meta.get("model", "")), search)
    tokens, layer_s, once_s = _dense(path / "dense.csv")
    sequences, head_s = _per_sequence(path / "per_sequence.csv")
    rows = read_table(path / "attention.csv", {name: (name,) for name in _ATTENTION}, {})
    grid = np.array([[row.not_negative(name) for name in _ATTENTION] for row in rows])
    decoding, prefill, context = grid[:, 2], grid[:, 0], grid[:, 3]
    usable = (context <= _LONGEST_CONTEXT) & (grid[:, 1] <= _LONGEST_CONTEXT) & (prefill + decoding <= tokens[-1])
    usable &= ((decoding == 0) | (context >= _SHORTEST_CONTEXT)) & (decoding + (prefill > 0) <= sequences[-1])
    usable &= decoding * context <= _MOST_CONTEXT
    # tables hold far more mixed steps than others
    kinds = (prefill == 0, decoding == 0, (prefill > 0) & (decoding > 0))
    chosen = np.sort(np.concatenate([rng.permutation(np.flatnonzero(usable & kind))[:_MOST_ROWS] for kind in kinds]))
    if len(chosen) < 2:
        raise InputError("kernels", str(path), f"attention times over contexts of {_SHORTEST_CONTEXT} tokens and more")
    prefill, cached, decoding, context, attention_us = grid[chosen].T
    total = prefill + decoding
    seconds = model.layers * (np.interp(total, tokens, layer_s) + attention_us * 1e-6)
    seconds += np.interp(total, tokens, once_s) + np.interp(decoding + (prefill > 0), sequences, head_s)
    held_out = rng.random(len(chosen)) < share
    tp = _degree(meta, path)
    precision = str(meta.get("variant", "bf16"))
    return KernelSource(path.name, tp, model, precision, decoding, context, prefill, cached, seconds, held_out)


_ATTENTION = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us")


def _meta(path: Path) -> dict[str, Any]:
    import yaml

    try:
        meta = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise InputError("kernels", path.name, "a readable YAML file", str(path)) from None
    if not isinstance(meta, dict):
        raise InputError("kernels", path.name, "a mapping with the model's name", str(path))
    return meta


def _degree(meta: dict[str, Any], path: Path) -> int:
    """Tensor-parallel degree: the only one that the file lists, or the one in the folder's name."""
    degrees = meta.get("tp_degrees", [1])
    named = re.search(r"tp(\d+)$", path.resolve().name)
    if isinstance(degrees, list) and len(degrees) == 1 and isinstance(degrees[0], int):
        return degrees[0]
    if named is None:
        raise InputError("tp_degrees", degrees, "one degree, or a folder whose name ends in tpN", str(path))
    return int(named[1])


def _dense(path: Path) -> tuple[Floats, Floats, Floats]:
    """Tokens, and the time that dense kernels take a layer and once a step [s]."""
    by_kernel = _curves(path, "layer", "tokens")
    tokens = next(iter(by_kernel.values()))[0]
    layer_s, once_s = np.zeros(len(tokens)), np.zeros(len(tokens))
    for kernel, (own, seconds) in by_kernel.items():
        at = np.interp(tokens, own, seconds)
        if kernel in _ONCE:
            once_s += at
        else:
            layer_s += at * (2.0 if kernel in _TWICE else 1.0)
    return tokens, layer_s, once_s


def _per_sequence(path: Path) -> tuple[Floats, Floats]:
    """Sequences, and the time of what runs once a step for each: output head and sampler [s]."""
    by_kernel = _curves(path, "layer", "sequences")
    sequences = next(iter(by_kernel.values()))[0]
    return sequences, np.sum([np.interp(sequences, *curve) for curve in by_kernel.values()], axis=0)


def _curves(path: Path, kernel: str, size: str) -> dict[str, tuple[Floats, Floats]]:
    """Sizes and times [s] of each kernel of a table."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in read_table(path, {name: (name,) for name in (kernel, size, "time_us")}, {}):
        points.setdefault(row.text(kernel), []).append((row.positive(size), row.positive("time_us") * 1e-6))
    curves = {}
    for name, pairs in points.items():
        x, y = np.array(sorted(pairs)).T
        curves[name] = (x, y)
    return curves

"""Useful work of a pool: the FLOP that its answers took, by the model's shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.hardware.model import Model


def useful_flop(model: Model, prompt: npt.NDArray[Any], cached: npt.NDArray[Any], output: npt.NDArray[Any]) -> float:
    """FLOP of requests: 2 per weight and token, and attention by (query, context) pair; work done twice counts once.

    Args:
        model: what was served.
        prompt, cached, output: tokens of each request; those in a prefix cache are read, not computed, and the last
            output token is never fed back.

    Source: the usual count, 2 x active parameters a token and 4 x layers x width a pair.
    """
    prompt, cached, output = (np.asarray(each, dtype=np.float64) for each in (prompt, cached, output))
    total = model.gemm_flops_per_token() * float((prompt - cached + output - 1.0).sum())
    for windowed, span in ((False, math.inf), (True, float(model.window))):
        if windowed and not model.window_layers:
            continue
        prefill = _pairs(prompt, span) - _pairs(cached, span)
        decode = _pairs(prompt + output - 1.0, span) - _pairs(prompt, span)
        total += model.attention_flops_per_pair(windowed, prefill=True) * float(prefill.sum())
        total += model.attention_flops_per_pair(windowed) * float(decode.sum())
    return total


def _pairs(tokens: npt.NDArray[np.float64], span: float) -> npt.NDArray[np.float64]:
    """Pairs of the first `tokens` tokens, each with itself and those before it, at most `span`."""
    inside = np.minimum(tokens, span)
    beyond: npt.NDArray[np.float64] = (tokens - inside) * (span if math.isfinite(span) else 0.0)
    return inside * (inside + 1.0) / 2.0 + beyond

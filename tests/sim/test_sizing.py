"""What fits: block counts against a measured run, and messages that say what would fit."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from sim.errors import InputError
from sim.fleet.engine_settings import EngineSettings
from sim.fleet.spec import Pool
from sim.hardware import catalogue
from sim.hardware.deployment import Deployment
from sim.hardware.sizing import check_fit, kv_block_bytes, kv_blocks, weight_bytes_per_xpu
from sim.units import GB

DATA = Path(os.environ.get("HYBRIDFLEET_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def pool(model: str, xpu: str, tp: int = 1, precision: str = "bf16", **engine: object) -> Pool:
    settings = EngineSettings(**engine)  # type: ignore[arg-type]
    return Pool("p", catalogue.model(model), catalogue.xpu(xpu), tp=tp, precision=precision, engine=settings)


def test_blocks_of_the_measured_rtx_4090_run() -> None:
    """vLLM 0.19 reported 2,588 blocks of 16 tokens at a utilization of 0.9."""
    assert check_fit(pool("llama_3_1_8b", "rtx_4090")) == pytest.approx(2588, rel=0.03)


def test_the_measured_number_is_the_one_in_the_data() -> None:
    meta = DATA / "measured" / "vllm" / "rtx4090_llama31_8b" / "meta.json"
    if not meta.is_file():
        pytest.skip(f"needs {meta}; set HYBRIDFLEET_DATA")
    run = json.loads(meta.read_text(encoding="utf-8"))
    cache = run["kv_cache"]
    xpu = catalogue.xpu("rtx_4090")
    assert run["hardware"]["device_total_memory_bytes"] == xpu.memory_bytes
    util = cache["gpu_memory_utilization"]
    derived = kv_blocks(catalogue.model("llama_3_1_8b"), xpu, 1, "bf16", None, cache["block_size"], util)
    assert derived == pytest.approx(cache["num_gpu_blocks"], rel=0.03)


def test_blocks_of_the_measured_rtx_a6000_run() -> None:
    """vLLM 0.11 reported room for 216,720 tokens of Llama-3.1-8B at a utilization of 0.9."""
    assert 16 * check_fit(pool("llama_3_1_8b", "rtx_a6000")) == pytest.approx(216720, rel=0.03)


def test_blocks_follow_their_formula() -> None:
    model, xpu = catalogue.model("llama_3_1_70b"), catalogue.xpu("h100_sxm")
    for tp, precision, kv, block, util in ((4, "bf16", None, 16, 0.9), (2, "fp8", "fp8", 32, 0.85)):
        per_block = 80 * 2 * (8 / tp) * 128 * (1 if kv == "fp8" else 2) * block
        weights = (model.params * 2 if precision == "bf16" else model.params + 2 * 128256 * 8192) / tp
        free = util * 80 * 2**30 - weights - xpu.memory_reserved_bytes
        assert kv_block_bytes(model, xpu, tp, kv, block) == per_block
        assert kv_blocks(model, xpu, tp, precision, kv, block, util) == math.floor(free / per_block)


def test_kv_heads_are_replicated_beyond_their_number_and_mla_always() -> None:
    xpu = catalogue.xpu("h100_sxm")
    gqa, mla = catalogue.model("llama_3_1_70b"), catalogue.model("deepseek_v3")
    assert kv_block_bytes(gqa, xpu, 16, None, 16) == kv_block_bytes(gqa, xpu, 8, None, 16)
    assert kv_block_bytes(mla, xpu, 8, None, 16) == kv_block_bytes(mla, xpu, 1, None, 16) == 16 * 70272


def test_sizing_and_timing_use_the_same_numbers() -> None:
    model, xpu = catalogue.model("qwen3_32b"), catalogue.xpu("a100_sxm_80gb")
    for tp in (1, 2, 4, 8):
        deployment = Deployment(model, xpu, tp)
        assert kv_block_bytes(model, xpu, tp, None, 16) == 16 * deployment.kv_bytes_per_token_and_xpu
        assert weight_bytes_per_xpu(model, tp, "bf16") == model.weight_bytes("bf16") / tp


def test_more_memory_use_or_parallelism_never_means_fewer_blocks() -> None:
    sizes = [check_fit(pool("llama_3_1_8b", "h100_sxm", gpu_memory_utilization=util)) for util in (0.5, 0.7, 0.9, 1.0)]
    assert sizes == sorted(sizes)
    sizes = [check_fit(pool("llama_3_1_8b", "h100_sxm", tp=tp)) for tp in (1, 2, 4, 8)]
    assert sizes == sorted(sizes)


def test_a_model_that_does_not_fit_says_by_how_much_and_what_would_fit() -> None:
    with pytest.raises(InputError) as caught:
        check_fit(pool("llama_3_1_70b", "h100_sxm"))
    error = caught.value
    assert (error.key, error.value) == ("pools.p.model", "llama_3_1_70b")
    xpu = catalogue.xpu("h100_sxm")
    short = 2 * 70.554e9 + xpu.memory_reserved_bytes + 2 * 16 * 327680 - 0.9 * xpu.memory_bytes
    assert f"{short / GB:.1f} GB more than there is room for" in error.accepted
    assert "tp=2 or precision=fp8 would fit" in error.accepted
    # What the message promises is true, and nothing smaller is.
    assert check_fit(pool("llama_3_1_70b", "h100_sxm", tp=2)) > 2
    assert check_fit(pool("llama_3_1_70b", "h100_sxm", precision="fp8")) > 2


def test_a_model_beyond_any_help_says_so() -> None:
    with pytest.raises(InputError, match="neither more parallelism nor a smaller format"):
        check_fit(pool("kimi_k2", "jetson_thor", precision="fp8"))


@pytest.mark.parametrize(
    ("model", "xpu", "tp", "precision", "key", "accepted"),
    [
        ("llama_3_2_1b", "t4", 1, "bf16", "precision", "t4 has: fp16 | int8 | int4"),
        ("llama_3_1_8b", "a100_sxm_80gb", 1, "fp4", "precision", "a100_sxm_80gb has: bf16 | fp16 | int8 | fp8 | int4"),
        ("llama_3_1_8b", "h100_sxm", 1, "fp7", "precision", "h100_sxm has"),
        ("llama_3_1_8b", "h100_sxm", 3, "bf16", "tp", "a divisor of the 32 attention heads"),
        ("phi_4", "h100_sxm", 4, "bf16", "tp", "a divisor or a multiple of the 10 KV heads"),
        ("llama_3_2_1b", "apple_m2", 2, "fp16", "tp", "no link to a peer"),
    ],
)
def test_impossible_pools_are_refused(model: str, xpu: str, tp: int, precision: str, key: str, accepted: str) -> None:
    with pytest.raises(InputError) as caught:
        check_fit(pool(model, xpu, tp, precision))
    assert caught.value.key == f"pools.p.{key}"
    assert accepted in caught.value.accepted


def test_kv_precision_must_be_a_format() -> None:
    bad = Pool("p", catalogue.model("llama_3_1_8b"), catalogue.xpu("h100_sxm"), kv_precision="fp5")
    with pytest.raises(InputError, match=r"pools\.p\.kv_precision='fp5'"):
        check_fit(bad)


def test_explicit_blocks_override_the_derived_number_within_the_memory() -> None:
    assert check_fit(pool("llama_3_1_8b", "rtx_4090", kv_blocks=2588)) == 2588
    with pytest.raises(InputError, match=r"engine\.kv_blocks=100000 .*at most the \d+ blocks that fit rtx_4090"):
        check_fit(pool("llama_3_1_8b", "rtx_4090", kv_blocks=100000))
    with pytest.raises(InputError, match=r"pools\.p\.model='llama_3_1_70b'"):
        check_fit(pool("llama_3_1_70b", "rtx_4090", kv_blocks=100))

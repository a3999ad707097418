"""The catalogue: every entry is there, complete and plausible, and bad entries are refused in one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sim.errors import InputError
from sim.hardware import catalogue

XPUS = (
    "h100_sxm",
    "h200_sxm",
    "b200_sxm",
    "a100_sxm_80gb",
    "a100_sxm_40gb",
    "v100_sxm_32gb",
    "l4",
    "l40s",
    "t4",
    "rtx_4090",
    "rtx_6000_ada",
    "rtx_pro_6000",
    "rtx_a6000",
    "mi300x",
    "gaudi3",
    "tpu_v5e",
    "tpu_v6e",
    "jetson_agx_orin_64gb",
    "jetson_orin_nx_16gb",
    "jetson_orin_nano_8gb",
    "jetson_thor",
    "apple_m2",
    "snapdragon_8_gen_3",
)

#: Published parameters, all and active ones, in 1e9, of the model cards and reports. Active counts of gpt-oss leave the
#: embedding table out; towers for other media are not in the catalogue, so multimodal models are compared without.
PARAMS = {
    "llama_2_7b": (6.74, 6.74),
    "llama_2_13b": (13.02, 13.02),
    "llama_2_70b": (68.98, 68.98),
    "llama_3_8b": (8.03, 8.03),
    "llama_3_70b": (70.55, 70.55),
    "llama_3_1_8b": (8.03, 8.03),
    "llama_3_1_70b": (70.55, 70.55),
    "llama_3_1_405b": (405.85, 405.85),
    "llama_3_2_1b": (1.236, 1.236),
    "llama_3_2_3b": (3.213, 3.213),
    "llama_4_scout": (109, 17),
    "llama_4_maverick": (400, 17),
    "codellama_34b": (33.74, 33.74),
    "yi_34b": (34.39, 34.39),
    "mistral_7b": (7.24, 7.24),
    "mistral_nemo": (12.25, 12.25),
    "mixtral_8x7b": (46.7, 12.9),
    "mixtral_8x22b": (141, 39),
    "qwen2_5_7b": (7.61, 7.61),
    "qwen3_0_6b": (0.6, 0.6),
    "qwen3_1_7b": (1.7, 1.7),
    "qwen3_8b": (8.2, 8.2),
    "qwen3_14b": (14.8, 14.8),
    "qwen3_32b": (32.8, 32.8),
    "qwen3_30b_a3b": (30.5, 3.3),
    "qwen3_235b_a22b": (235, 22),
    "qwen3_coder_480b_a35b": (480, 35),
    "qwen3_vl_8b": (8.2, 8.2),
    "deepseek_v2_lite": (15.7, None),
    "deepseek_v3": (671, 37),
    "deepseek_r1": (671, 37),
    "gpt_oss_20b": (20.9, 3.6),
    "gpt_oss_120b": (116.8, 5.1),
    "gemma_3_4b": (3.88, 3.88),
    "gemma_3_12b": (11.8, 11.8),
    "gemma_3_27b": (27.0, 27.0),
    "gemma_4_26b_a4b": (25.2, 3.8),
    "kimi_k2": (1026, 32),
    "phi_4": (14.66, 14.66),
    "bloom_176b": (176.25, 176.25),
    "nemotron_3_nano_30b": (31.6, 3.6),
}


@pytest.mark.parametrize("name", XPUS)
def test_xpu_is_there_and_plausible(name: str) -> None:
    xpu = catalogue.xpu(name)
    assert xpu.id == name
    assert 4e9 < xpu.memory_bytes < 4e11
    assert 3e10 < xpu.bandwidth_bytes_per_s < 1e13
    assert 1.0 < xpu.tdp_w < 1500.0
    assert xpu.idle_w <= xpu.power.static_w < xpu.tdp_w
    timing = xpu.timing
    assert all(0.1 < eff <= 1.0 for eff in (timing.compute_eff, timing.weight_eff, timing.kv_eff, timing.attn_eff))
    assert all(1e12 < peak < 2e16 for peak in xpu.peak_flops.values())
    assert xpu.memory_reserved_bytes < 0.4 * xpu.memory_bytes
    # Prefill alone stays within the power limit: the efficiencies come from chips that already obey it.
    power = xpu.power
    prefill = power.static_w + max(power.active_w, timing.compute_eff * power.compute_w)
    decode = power.static_w + max(power.active_w, timing.weight_eff * power.memory_w)
    assert min(prefill, power.peak_w or prefill) <= xpu.tdp_w
    assert 0.3 * xpu.tdp_w < min(decode, power.peak_w or decode) <= xpu.tdp_w
    if power.peak_w:  # GEMMs reach the limit
        assert prefill > 0.9 * xpu.tdp_w


def test_formats_are_those_of_the_chips() -> None:
    formats = {name: set(catalogue.xpu(name).peak_flops) for name in XPUS}
    assert all("bf16" not in formats[name] for name in ("t4", "v100_sxm_32gb"))
    assert all("fp8" not in formats[name] for name in ("a100_sxm_80gb", "a100_sxm_40gb", "rtx_a6000", "t4"))
    assert all("fp8" in formats[name] for name in ("h100_sxm", "h200_sxm", "l4", "l40s", "rtx_4090", "rtx_6000_ada"))
    assert {name for name in XPUS if "fp4" in formats[name]} == {"b200_sxm", "rtx_pro_6000", "jetson_thor"}
    assert formats["tpu_v5e"] == {"bf16", "int8"}
    for name in XPUS:
        xpu = catalogue.xpu(name)
        assert not set(xpu.weight_only_formats) & formats[name]
        if {"bf16", "fp16"} <= formats[name]:
            assert xpu.peak_flops["bf16"] == xpu.peak_flops["fp16"]


def test_units_convert() -> None:
    xpu = catalogue.xpu("h100_sxm")
    assert xpu.memory_bytes == 85899345920
    assert catalogue.xpu("rtx_4090").memory_bytes == 25250627584
    assert xpu.bandwidth_bytes_per_s == 3.35e12
    assert xpu.timing.layer_overhead_s == pytest.approx(25.7e-6)
    assert xpu.peak_flops["bf16"] == 989e12
    assert catalogue.xpu("apple_m2").timing.link_bytes_per_s is None


def test_t4_refuses_bf16_and_names_what_it_has() -> None:
    with pytest.raises(InputError, match=r"fp16 \| int4 \| int8"):
        catalogue.xpu("t4").flops("bf16")


@pytest.mark.parametrize("name", PARAMS)
def test_model_has_the_published_parameters(name: str) -> None:
    model = catalogue.model(name)
    total, active = PARAMS[name]
    assert model.params / 1e9 == pytest.approx(total, rel=0.02)
    counted = model.params_active - (model.embedding_params if name.startswith("gpt_oss") else 0.0)
    if active is not None:
        assert counted / 1e9 == pytest.approx(active, rel=0.035)


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [("llama_3_8b", 131072), ("llama_3_1_70b", 327680), ("deepseek_v3", 70272), ("llama_2_7b", 524288)],
)
def test_kv_bytes_per_token(name: str, kv_bytes: int) -> None:
    assert catalogue.model(name).kv_bytes_per_token() == kv_bytes


def test_at_least_thirty_models_with_a_hugging_face_name() -> None:
    models = [catalogue.model(name) for name in catalogue.list_entries("model")]
    assert len(models) >= 34
    assert min(model.params for model in models) < 0.65e9
    assert max(model.params for model in models) > 1e12
    assert {"mha", "gqa", "mla"} == {model.attention for model in models}
    assert all("/" in model.hf_id for model in models)
    names = [name.lower() for model in models for name in (model.id, model.hf_id, *model.aliases)]
    assert len(names) == len(set(names)), "a name that means two models"


def test_windows_of_alternating_layers() -> None:
    oss = catalogue.model("gpt_oss_120b")
    assert (oss.window, oss.window_layers, oss.layers) == (128, 18, 36)
    gemma = catalogue.model("gemma_3_27b")
    assert (gemma.window, gemma.window_layers, gemma.layers) == (1024, 52, 62)
    scout = catalogue.model("llama_4_scout")
    assert (scout.window, scout.window_layers, scout.layers) == (8192, 36, 48)


def test_gemma_4_keeps_two_shapes_of_kv_cache() -> None:
    gemma = catalogue.model("gemma_4_26b_a4b")
    assert gemma.kv_bytes_per_token() == 2 * (25 * 2 * 8 * 256 + 5 * 2 * 2 * 512)
    assert gemma.full_kv_share == pytest.approx(5 * 2048 / 112640)
    assert gemma.attention_flops_per_pair(windowed=True) == 4 * 25 * 16 * 256
    assert gemma.attention_flops_per_pair() == 4 * 5 * 16 * 512


def test_mla_prefill_is_cheaper_than_decode() -> None:
    model = catalogue.model("deepseek_v3")
    assert model.attention_flops_per_pair() == 2 * 61 * 128 * (2 * 512 + 64)
    assert model.attention_flops_per_pair(prefill=True) == 2 * 61 * 128 * (2 * 128 + 64)


def test_quantized_builds_keep_vocabulary_tables_in_16_bit() -> None:
    model = catalogue.model("llama_3_1_8b")
    tables = 2 * 128256 * 4096
    assert model.weight_bytes("bf16") == 2 * model.params
    assert model.weight_bytes("fp8") == model.params + tables
    assert model.streamed_bytes(1, "fp8") == model.params - tables + 2 * tables / 2
    tied = catalogue.model("llama_3_2_1b")
    assert tied.streamed_bytes(1, "bf16") == 2 * tied.params


@pytest.mark.parametrize(
    "name",
    ["llama_3_1_8b", "LLAMA_3_1_8B", "meta-llama/Llama-3.1-8B", "redhatai/llama-3.1-8b-instruct-fp8-dynamic"],
)
def test_model_is_found_by_id_hf_name_and_alias_in_any_case(name: str) -> None:
    assert catalogue.model(name).id == "llama_3_1_8b"


@pytest.mark.parametrize(
    ("group", "name", "closest"),
    [("xpu", "h100", "h100_sxm"), ("model", "Llama 3.1-9B-Chat", "llama_3_1_8b"), ("xpu", "../xpu/l40s", "l40s")],
)
def test_unknown_names_are_refused_with_the_closest(group: str, name: str, closest: str) -> None:
    with pytest.raises(InputError, match=rf"closest: .*{closest}.*hybridfleet list {group}s"):
        catalogue.load_entry(group, name)


def _constants(node: object, key: str = "") -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(node, dict):
        return []
    if "value" in node:
        return [(key, node)]
    return [leaf for name, item in node.items() for leaf in _constants(item, f"{key}.{name}")]


@pytest.mark.parametrize(
    "path", sorted(p for g in ("xpu", "model") for p in (catalogue.CONF / g).glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_constant_names_unit_source_and_kind(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    constants = _constants(yaml.safe_load(text))
    assert len(constants) >= 10
    for key, leaf in constants:
        assert set(leaf) == {"value", "unit", "source", "kind"}, key
        assert leaf["kind"] in catalogue.KINDS, key
        assert len(leaf["source"]) > 3, key
        assert not (leaf["kind"] == "published" and "memory, not checked" in leaf["source"]), key


GOOD = """
peak_flops: {bf16: {value: 1e14, unit: FLOP/s, source: mine, kind: assumed}}
memory_bytes: {value: 24, unit: GB, source: mine, kind: assumed}
bandwidth_bytes_per_s: {value: 1, unit: TB/s, source: mine, kind: assumed}
tdp_w: {value: 300, unit: W, source: mine, kind: assumed}
idle_w: {value: 30, unit: W, source: mine, kind: assumed}
timing:
  compute_eff: {value: 0.5, unit: share of peak, source: mine, kind: assumed}
  weight_eff: {value: 0.5, unit: share of peak, source: mine, kind: assumed}
  kv_eff: {value: 0.5, unit: share of peak, source: mine, kind: assumed}
  attn_eff: {value: 0.5, unit: share of peak, source: mine, kind: assumed}
  step_overhead_s: {value: 1, unit: ms, source: mine, kind: assumed}
  layer_overhead_s: {value: 1, unit: us, source: mine, kind: assumed}
  seq_overhead_s: {value: 1, unit: us, source: mine, kind: assumed}
power:
  static_w: {value: 50, unit: W, source: mine, kind: assumed}
  compute_w: {value: 100, unit: W, source: mine, kind: assumed}
  memory_w: {value: 100, unit: W, source: mine, kind: assumed}
"""


def _mine(folder: Path, text: str) -> Path:
    (folder / "xpu").mkdir()
    (folder / "xpu" / "mine.yaml").write_text(text, encoding="utf-8")
    return folder


def test_a_users_entry_is_found_first(tmp_path: Path) -> None:
    xpu = catalogue.xpu("mine", [_mine(tmp_path, GOOD)])
    assert (xpu.memory_bytes, xpu.timing.step_overhead_s, xpu.name) == (24e9, 1e-3, "mine")
    assert xpu.peak_flops == {"bf16": 1e14}
    assert xpu.provenance["timing.kv_eff"] == ("share of peak", "mine", "assumed")
    assert "mine" in catalogue.list_entries("xpu", [tmp_path])
    assert "mine" not in catalogue.list_entries("xpu")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("value: 300, unit: W", "value: -300, unit: W", "tdp_w"),
        ("value: 300, unit: W", "value: .nan, unit: W", "tdp_w"),
        ("value: 300, unit: W", "value: '300', unit: W", "tdp_w"),
        ("value: 300, unit: W", "value: true, unit: W", "tdp_w"),
        ("value: 300, unit: W", "value: null, unit: W", "tdp_w"),
        ("value: 300, unit: W", "value: 300, unit: kW", "tdp_w.unit"),
        ("value: 300, unit: W, source: mine,", "value: 300, unit: W,", "tdp_w.source"),
        ("tdp_w: {value: 300, unit: W, source: mine, kind: assumed}", "tdp_w: 300", "tdp_w"),
        ("tdp_w: {value: 300, unit: W, source: mine, kind: assumed}", "", "tdp_w"),
        (
            "value: 30, unit: W, source: mine, kind: assumed",
            "value: 30, unit: W, source: mine, kind: guess",
            "idle_w.kind",
        ),
        ("value: 30, unit: W,", "value: 30, unit: W, colour: red,", "idle_w.colour"),
        ("idle_w", "idel_w", "idel_w"),
        ("{bf16:", "{bf17:", "peak_flops.bf17"),
        ("static_w: {value: 50", "static_w: {value: 500", "power.static_w"),
        ("kv_eff: {value: 0.5", "kv_eff: {value: 0", "kv_eff"),
        ("timing:", "timing: [", "xpu"),
        ("timing:", "timing: 3\npowre:", "timing"),
    ],
)
def test_malformed_entries_name_file_and_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    assert old in GOOD
    with pytest.raises(InputError) as caught:
        catalogue.xpu("mine", [_mine(tmp_path, GOOD.replace(old, new, 1))])
    assert key in caught.value.key
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)

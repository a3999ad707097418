"""Importing Hugging Face configs: traps of the families, a folder of real ones, and malformed input."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scenarios import cli, import_model, listing
from scenarios.import_model import import_config
from sim.errors import InputError
from sim.hardware import catalogue
from sim.hardware.grounding import grade
from tests.scenarios.command import QUICK

DATA = Path(os.environ.get("HYBRIDFLEET_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CONFIGS = DATA / "reference" / "model_configs"

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
MOE = {**LLAMA, "model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 1024}


def values(config: dict[str, Any]) -> dict[str, Any]:
    entry = import_config(config, "test")
    return {key: leaf["value"] for key, leaf in entry.items() if isinstance(leaf, dict)}


def test_parameters_of_llama_3_1_8b_are_exact() -> None:
    entry = values(LLAMA)
    assert entry["params"] == entry["params_active"] == 8_030_261_248
    assert entry["embedding_params"] == 128256 * 4096
    assert (entry["attention"], entry["kv_heads"], entry["head_dim"]) == ("gqa", 8, 128)
    assert entry["checkpoint_precision"] == "bf16"


def test_absent_kv_heads_mean_mha_and_an_explicit_head_dim_wins() -> None:
    assert values({k: v for k, v in LLAMA.items() if k != "num_key_value_heads"})["attention"] == "mha"
    assert values({**LLAMA, "head_dim": 64})["head_dim"] == 64


def test_tied_embeddings_count_once() -> None:
    tied = values({**LLAMA, "tie_word_embeddings": True})
    assert tied["params"] == 8_030_261_248 - 128256 * 4096
    assert tied["embedding_params"] == 0


def test_nested_text_config() -> None:
    nested = {"model_type": "some_vl", "vision_config": {"hidden_size": 1}, "text_config": LLAMA}
    assert values(nested)["params"] == 8_030_261_248
    assert "Text decoder only" in import_config(nested, "test")["note"]


@pytest.mark.parametrize(
    ("extra", "moe_layers"),
    [
        ({}, 32),
        ({"mlp_only_layers": [0, 1]}, 30),
        ({"decoder_sparse_step": 2}, 16),
        ({"first_k_dense_replace": 3, "moe_layer_freq": 1}, 29),
        ({"interleave_moe_layer_step": 4}, 8),
        ({"moe_layers": [1, 3]}, 2),
    ],
)
def test_layers_with_experts(extra: dict[str, Any], moe_layers: int) -> None:
    entry = values({**MOE, **extra})
    assert entry["moe_layers"] == moe_layers
    assert entry["expert_params"] == 3 * 4096 * 1024
    assert entry["params"] - entry["params_active"] == moe_layers * 6 * 3 * 4096 * 1024


@pytest.mark.parametrize(
    ("extra", "window", "layers"),
    [
        ({"sliding_window": 4096}, 4096, 32),
        ({"sliding_window": 4096, "use_sliding_window": False}, None, None),
        ({"sliding_window": 131072}, None, None),
        ({"sliding_window": 512, "sliding_window_pattern": 6}, 512, 27),
        ({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 16}, 128, 16),
        ({"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 20}, 4096, 12),
        ({"attention_chunk_size": 8192}, 8192, 24),
        ({"attention_chunk_size": 8192, "no_rope_layers": [1] * 30 + [0] * 2}, 8192, 30),
    ],
)
def test_windows(extra: dict[str, Any], window: int | None, layers: int | None) -> None:
    entry = values({**LLAMA, **extra})
    assert (entry.get("window"), entry.get("window_layers")) == (window, layers)


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [
        ({"quant_method": "fp8", "fmt": "e4m3"}, "fp8"),
        ({"quant_method": "mxfp4"}, "fp4"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "compressed-tensors", "weights": {"num_bits": 8, "type": "float"}}, "fp8"),
        ({"quant_method": "compressed-tensors", "weights": {"num_bits": 4, "type": "int"}}, "int4"),
    ],
)
def test_precision_of_the_checkpoint(quantization: dict[str, Any], precision: str) -> None:
    assert values({**LLAMA, "quantization_config": quantization})["checkpoint_precision"] == precision


def test_gpt2_names_and_ungated_mlp() -> None:
    gpt2 = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
    assert values(gpt2)["params"] == pytest.approx(124e6, rel=0.01)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ([], "config"),
        ("text", "config"),
        ({}, "model_type"),
        ({**LLAMA, "model_type": "bert"}, "model_type"),
        ({**LLAMA, "model_type": "t5", "is_encoder_decoder": True}, "model_type"),
        ({k: v for k, v in LLAMA.items() if k != "hidden_size"}, "hidden_size"),
        ({k: v for k, v in LLAMA.items() if k != "max_position_embeddings"}, "max_position_embeddings"),
        ({**LLAMA, "num_hidden_layers": -1}, "num_hidden_layers"),
        ({**LLAMA, "num_hidden_layers": "32"}, "num_hidden_layers"),
        ({**LLAMA, "num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({**LLAMA, "num_hidden_layers": float("nan")}, "num_hidden_layers"),
        ({**LLAMA, "num_hidden_layers": True}, "num_hidden_layers"),
        ({**LLAMA, "layer_types": ["full_attention"]}, "layer_types"),
        ({**LLAMA, "layer_types": "full_attention"}, "layer_types"),
        ({**LLAMA, "layer_types": ["linear_attention"] * 32}, "linear_num_key_heads"),
        ({**LLAMA, "hybrid_override_pattern": "M*", "mamba_num_heads": 1}, "num_hidden_layers"),
        ({**LLAMA, "kv_lora_rank": 512}, "qk_rope_head_dim"),
        ({**MOE, "num_experts_per_tok": 0}, "num_experts_per_tok"),
    ],
)
def test_malformed_configs_are_refused(config: object, key: str) -> None:
    with pytest.raises(InputError) as caught:
        import_config(config, "test")
    assert caught.value.key == key


def test_an_imported_entry_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    (tmp_path / "model").mkdir()
    out = tmp_path / "model" / "mine.yaml"
    arguments = [str(tmp_path / "config.json"), "--id", "me/Mine-8B", "--out", str(out)]
    assert import_model.main(arguments) == 0
    model = catalogue.model("ME/mine-8b", [tmp_path])
    assert (model.id, model.params, model.max_context) == ("mine", 8_030_261_248, 131072)
    assert model.provenance["params"][2] == "derived"
    with pytest.raises(InputError, match="a file that does not exist yet"):
        import_model.main(arguments)
    command = shlex.split(capsys.readouterr().err.split("try: hybridfleet ")[1])
    assert cli.main([*command, *QUICK[1:], f"out={tmp_path / 'run'}"]) == 0
    capsys.readouterr()
    assert import_model.main(arguments[:3]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["hf_id"] == "me/Mine-8B"


@pytest.mark.parametrize("text", ["{", "", "\x00", '{"model_type": 3}', "[1]"])
def test_malformed_files_are_refused_and_write_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    out = tmp_path / "out.yaml"
    with pytest.raises(InputError) as caught:
        import_model.main([str(tmp_path / "config.json"), "--out", str(out)])
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_missing_file_and_missing_argument_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        import_model.main([str(tmp_path / "none.json")])
    with pytest.raises(InputError, match="required: config"):
        import_model.main([])


@pytest.mark.skipif(not CONFIGS.is_dir(), reason=f"needs {CONFIGS}; set HYBRIDFLEET_DATA")
def test_all_real_configs_import_and_agree_with_the_catalogue(tmp_path: Path) -> None:
    paths = sorted(CONFIGS.glob("*.json"))
    assert len(paths) == 41
    (tmp_path / "model").mkdir()
    known = 0
    for path in paths:
        assert import_model.main([str(path), "--out", str(tmp_path / "model" / f"{path.stem}.yaml")]) == 0
        model = catalogue.model(path.stem, [tmp_path])
        try:
            entry = catalogue.model(model.hf_id)
        except InputError:
            continue  # a file name that is no full Hugging Face name, or a model the catalogue leaves out
        known += 1
        for field in ("layers", "heads", "kv_heads", "head_dim", "window", "window_layers", "params", "params_active"):
            assert getattr(model, field) == getattr(entry, field), f"{path.stem}.{field}"
    assert known >= 20


def test_listing_shows_entries_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main(["xpus"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in catalogue.list_entries("xpu"))
    assert listing.main(["model"]) == 0
    assert "meta-llama/Llama-3.1-8B" in capsys.readouterr().out
    assert listing.main(["xpus", "--sources", "rtx_4090"]) == 0
    out = capsys.readouterr().out
    assert "timing.kv_eff" in out
    assert "2,588 blocks" in out
    assert "1008" in out


def test_listing_fits_a_terminal_of_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for noun in ("xpu", "model", "workload"):
        assert listing.main([f"{noun}s"]) == 0
        out = capsys.readouterr().out
        lines = re.sub(r"\x1b\[[\d;]*m", "", out).splitlines()  # plain
        assert max(map(len, lines)) <= 80
        assert noun != "model" or "context" in lines[2].split()
        shown = {words[0] for words in map(str.split, lines) if words}
        assert shown >= set(catalogue.list_entries(noun))  # whole ids, in one piece


@pytest.mark.parametrize("command", ["list", "import-model", "validate", "calibrate"])
def test_usage_texts_are_plain(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    out = capsys.readouterr().out
    assert f"hybridfleet {command}" in out
    assert "``" not in out


def test_listing_refuses_unknown_nouns_and_names() -> None:
    with pytest.raises(InputError, match=r"list='gadgets' .*models.*xpus"):
        listing.main(["gadgets"])
    with pytest.raises(InputError, match="closest: h100_sxm"):
        listing.main(["xpus", "h100"])


def test_grade_is_the_kind_most_timing_constants_have() -> None:
    assert grade(catalogue.xpu("rtx_4090").provenance) == "measured"
    assert grade(catalogue.xpu("h100_sxm").provenance) == "measured"
    assert grade(catalogue.xpu("apple_m2").provenance) == "assumed"

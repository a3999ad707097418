"""The breadth of the catalogue: sizes of models as published, and names of devices and builds as people write them."""

from __future__ import annotations

import pytest

from scenarios.deployment import xpu_named
from sim.errors import InputError
from sim.hardware import catalogue
from sim.units import GIB

#: published parameters [1e9]: those of the checkpoint where its page shows them, else as the maker rounds them
PUBLISHED = {
    "baichuan2_13b": 13.9,
    "bloom_7b": 7.069,
    "codellama_13b": 13.02,
    "codellama_70b": 68.98,
    "codellama_7b": 6.739,
    "command_r": 34.98,
    "command_r_plus": 103.8,
    "dbrx": 131.6,
    "deepseek_v2": 235.7,
    "falcon_40b": 41.3,
    "falcon_7b": 6.92,
    "gemma_2_27b": 27.23,
    "gemma_2_2b": 2.614,
    "gemma_2_9b": 9.242,
    "gemma_2b": 2.506,
    "gemma_7b": 8.538,
    "glm_4_5": 355,
    "glm_4_5_air": 106,
    "glm_4_9b": 9.4,
    "gpt_j_6b": 6.05,
    "gpt_neox_20b": 20.55,
    "granite_3_8b": 8.17,
    "internlm2_20b": 19.86,
    "internlm2_7b": 7.74,
    "ministral_8b": 8.02,
    "mistral_large_2407": 122.6,
    "mistral_small_22b": 22.25,
    "mistral_small_24b": 23.57,
    "mpt_30b": 29.96,
    "mpt_7b": 6.65,
    "olmo_2_13b": 13.72,
    "olmo_2_7b": 7.3,
    "olmoe_1b_7b": 6.92,
    "opt_13b": 12.85,
    "opt_1_3b": 1.316,
    "opt_2_7b": 2.652,
    "opt_30b": 29.97,
    "opt_66b": 65.72,
    "opt_6_7b": 6.658,
    "phi_3_5_moe": 41.9,
    "phi_3_medium_128k": 13.96,
    "phi_3_medium_4k": 13.96,
    "phi_3_mini_128k": 3.821,
    "phi_3_mini_4k": 3.821,
    "phi_4_mini": 3.836,
    "pythia_12b": 11.85,
    "qwen2_5_0_5b": 0.494,
    "qwen2_5_14b": 14.77,
    "qwen2_5_1_5b": 1.544,
    "qwen2_5_32b": 32.76,
    "qwen2_5_3b": 3.086,
    "qwen2_5_72b": 72.7,
    "qwen3_next_80b_a3b": 80,
    "smollm2_1_7b": 1.711,
    "starcoder2_15b": 15.96,
    "starcoder2_3b": 3.03,
    "starcoder2_7b": 7.174,
    "tinyllama_1_1b": 1.1,
    "yi_1_5_9b": 8.83,
    "yi_6b": 6.061,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_counted_from_the_dimensions_are_those_published(name: str) -> None:
    assert catalogue.model(name).params / 1e9 == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100_sxm_80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100_sxm_40gb"),
        ("NVIDIA A100 80GB PCIe", "a100_pcie_80gb"),
        ("A100-80G", "a100_sxm_80gb"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA H100 NVL", "h100_nvl"),
        ("H100_SXM", "h100_sxm"),
        ("NVIDIA H20", "h20"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA RTX A6000", "rtx_a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx_6000_ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx_pro_6000"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L40", "l40"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA A10", "a10"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-32GB", "v100_sxm_32gb"),
        ("Tesla V100-PCIE-16GB", "v100_pcie_16gb"),
        ("NVIDIA GeForce RTX 5090", "rtx_5090"),
        ("rtx4090_llama31_8b", "rtx_4090"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_devices_are_found_by_the_name_they_report(name: str, found: str) -> None:
    assert xpu_named(name) == found


def test_memory_tells_boards_of_one_name_apart() -> None:
    assert xpu_named("NVIDIA A100", memory_bytes=79.2 * GIB) == "a100_sxm_80gb"
    assert xpu_named("NVIDIA A100", memory_bytes=39.4 * GIB) == "a100_sxm_40gb"
    with pytest.raises(InputError, match="a100_sxm_40gb and a100_sxm_80gb fit"):
        xpu_named("NVIDIA A100")


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "Quadro RTX 8000", "H100 of mine, PCIe NVL"])
def test_other_boards_are_not_taken_for_one_of_the_catalogue(name: str) -> None:
    with pytest.raises(InputError, match="hybridfleet list xpus"):
        xpu_named(name)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("neuralmagic/Meta-Llama-3.1-8B-Instruct-quantized.w8a8", "llama_3_1_8b"),
        ("RedHatAI/Qwen2.5-32B-Instruct-FP8-dynamic", "qwen2_5_32b"),
        ("unsloth/gemma-2-9b-it-bnb-4bit", "gemma_2_9b"),
        ("TheBloke/CodeLlama-7B-Instruct-GPTQ", "codellama_7b"),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", "qwen2_5_72b"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "r1_distill_llama_70b"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3_30b_a3b"),
    ],
)
def test_builds_of_one_shape_are_found_by_their_name(name: str, found: str) -> None:
    assert catalogue.model(name).id == found


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.2-11B-Vision-Instruct", "Qwen/Qwen2.5-8B", "instruct", "/"])
def test_other_shapes_are_not_taken_for_one_of_the_catalogue(name: str) -> None:
    with pytest.raises(InputError, match="hybridfleet list models"):
        catalogue.model(name)

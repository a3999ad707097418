"""Quality of models as served, sparse weights, and the ground that results stand on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.metrics import summarize
from sim import InputError, Pool, catalogue
from sim.hardware.grounding import grounding
from sim.hardware.quality import effective_quality
from tests.sim.conftest import First, fleet_of, pool, simulate

LLAMA = catalogue.model("llama_3_1_8b")


def test_number_formats_multiply_the_scores() -> None:
    assert effective_quality(LLAMA, "bf16", None) == LLAMA.quality
    both = effective_quality(LLAMA, "int4", "fp8")
    assert both["mmlu"] == pytest.approx(0.694 * (1 - 0.015) * (1 - 0.001))


def test_weights_in_their_own_format_lose_nothing() -> None:
    published_in_fp8 = replace(LLAMA, checkpoint_precision="fp8")
    assert effective_quality(published_in_fp8, "fp8", None) == LLAMA.quality
    assert effective_quality(LLAMA, "fp8", None)["mmlu"] < LLAMA.quality["mmlu"]


def test_a_users_own_technique_is_found(tmp_path: Path) -> None:
    (tmp_path / "technique").mkdir()
    text = "quality_change: {value: -0.5, unit: ratio, source: mine, kind: measured}\n"
    (tmp_path / "technique" / "weights_int4.yaml").write_text(text)
    assert effective_quality(LLAMA, "int4", None, [tmp_path])["mmlu"] == pytest.approx(0.347)


def test_two_of_four_weights_stored_with_their_places() -> None:
    sparse = catalogue.model("sparse_llama_3_1_8b")
    tables = LLAMA.embedding_params + LLAMA.head_params
    assert sparse.weight_bytes("bf16") == pytest.approx((LLAMA.params - tables) * 0.5 * 2.25 + tables * 2)
    assert sparse.gemm_flops_per_token() == LLAMA.gemm_flops_per_token()
    assert sparse.quality == {}


@pytest.mark.parametrize(
    ("field", "value"), [("weight_sparsity", 1.0), ("weight_sparsity", -0.1), ("quality", {"mmlu": 1.5})]
)
def test_shares_beyond_one_are_refused(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        replace(LLAMA, **{field: value})  # type: ignore[arg-type]


def test_the_ground_is_that_of_most_constants() -> None:
    assert grounding(catalogue.xpu("h100_sxm"), LLAMA)["timing"] == "measured"
    assert grounding(catalogue.xpu("apple_m2"), LLAMA)["timing"] == "assumed"
    assert grounding(catalogue.xpu("h100_pcie"), LLAMA)["timing"] == "assumed"  # however well its relative is known


def test_the_summary_says_what_was_served_and_on_what_ground() -> None:
    good, other = pool("good", quality={"mmlu": 0.8, "gsm8k": 0.5}), pool("other", quality={"mmlu": 0.4})
    one, both = fleet_of(good), fleet_of(good, other)
    assert summarize(simulate(one, [(0.0, 10, 2)]))["total"]["quality"] == {"mmlu": 0.8, "gsm8k": 0.5}
    summary = summarize(simulate(both, [(0.0, 10, 2)] * 4, Alternate()))
    assert summary["total"]["quality"] == {"mmlu": pytest.approx(0.6)}
    assert summary["by_pool"]["good"]["quality"]["gsm8k"] == 0.5
    unused = summarize(simulate(both, [(0.0, 10, 2)], First()))
    assert unused["total"]["quality"] == {"mmlu": 0.8, "gsm8k": 0.5}, "a pool that served nobody has no say"
    real = Pool("p", LLAMA, catalogue.xpu("apple_m2"), precision="int4")
    found = summarize(simulate(fleet_of(real), [(0.0, 10, 2)]))["total"]["grounding"]
    assert found["timing"] == "assumed"


class Alternate:
    """Pools in turn."""

    def choose(self, request, fleet):  # type: ignore[no-untyped-def]
        return fleet.pools[request.id % len(fleet.pools)]

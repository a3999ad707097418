"""KV memory of models with windowed layers: groups and capacity by hand, and what a run shows of it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import EngineSettings, InputError, Pool, Result, catalogue, run
from sim.hardware.kv_layout import KvLayout, group_layers, layout_of
from sim.hardware.sizing import check_fit, kv_layout
from sim.routing.load import LeastOutstanding
from sim.units import GB
from tests.sim.conftest import ListWorkload, fleet_of

H100 = catalogue.xpu("h100_sxm")
GEMMA, GPT_OSS = catalogue.model("gemma_3_27b"), catalogue.model("gpt_oss_120b")


def pool(model: str = "gemma_3_27b", precision: str = "bf16", tp: int = 1, **engine: object) -> Pool:
    settings = EngineSettings(**engine)  # type: ignore[arg-type]
    return Pool("p", catalogue.model(model), H100, precision=precision, tp=tp, engine=settings)


@pytest.mark.parametrize(
    ("model", "full", "windowed", "layers"),
    [
        ("gemma_3_27b", 1, 6, 10),  # 10 and 52 layers
        ("gemma_3_1b", 1, 6, 4),  # 4 and 22
        ("gemma_2_27b", 1, 1, 23),
        ("gpt_oss_120b", 1, 1, 18),
        ("llama_4_scout", 1, 3, 12),
        ("mistral_7b", 0, 1, 32),  # all alike
    ],
)
def test_groups_are_of_the_size_of_the_rarer_kind_of_layer(model: str, full: int, windowed: int, layers: int) -> None:
    entry = catalogue.model(model)
    layout = layout_of(entry, 1, 16, 2048)
    assert (layout.full, layout.windowed, layout.window) == (full, windowed, entry.window)
    assert group_layers(entry.kv_layers - entry.window_layers, entry.window_layers) == layers


def test_kinds_of_about_as_many_layers_are_filled_up() -> None:
    """gpt-oss 20B with a layer that drafts: 13 and 12 layers are two groups of 13, not three of 12."""
    assert group_layers(13, 12) == 13
    assert group_layers(30, 20) == 20


def test_blocks_of_gemma_3_27b_by_hand() -> None:
    free = 0.9 * H100.memory_bytes - H100.memory_reserved_bytes - GEMMA.weight_bytes()
    page = 10 * 16 * 2 * 16 * 128 * 2  # layers a group, tokens, keys and values, heads, head width, bytes
    assert check_fit(pool()) == math.floor(free / page)
    assert free == pytest.approx(19.96 * GB, rel=2e-3)
    # 8,192 tokens: 512 blocks in full, and in each of 6 windows 64, since 1,024 is a multiple of 16
    assert kv_layout(pool()).decoding(8192) == 512 + 6 * 64
    assert kv_layout(pool()).decoding(8193) == 513 + 6 * 65
    whole = check_fit(pool(disable_hybrid_kv_cache_manager=True))
    assert whole == math.floor(free / (62 * 16 * 2 * 16 * 128 * 2))
    assert (check_fit(pool()) // (512 + 6 * 64), whole // 512) == (16, 4)


def test_blocks_of_gpt_oss_120b_by_hand() -> None:
    of = pool("gpt_oss_120b", "fp4")
    free = 0.9 * H100.memory_bytes - H100.memory_reserved_bytes - GPT_OSS.weight_bytes("fp4")
    assert check_fit(of) == math.floor(free / (18 * 16 * 2 * 8 * 64 * 2))
    assert kv_layout(of).decoding(4096) == 256 + 8
    # two xPUs halve what each keeps of a token
    two = pool("gpt_oss_120b", "fp4", tp=2)
    free = 0.9 * H100.memory_bytes - H100.memory_reserved_bytes - GPT_OSS.weight_bytes("fp4") / 2
    assert check_fit(two) == math.floor(free / (18 * 16 * 2 * 4 * 64 * 2))


def test_blocks_of_narrower_layers_hold_more_tokens() -> None:
    """Gemma 4 26B-A4B: 2 heads of 512 values in full layers, 8 of 256 in windowed ones."""
    layout = layout_of(catalogue.model("gemma_4_26b_a4b"), 1, 16, 2048)
    assert (layout.block, layout.windowed_block) == (32, 16)
    assert layout.decoding(4096) == 128 + 5 * 64


def test_sparse_attention_keeps_everything() -> None:
    """DeepSeek-V3.2 attends to 2,048 tokens of its choice: any of them may be chosen later."""
    of = Pool("p", catalogue.model("deepseek_v3_2"), H100, precision="fp8", tp=16)
    assert kv_layout(of) == KvLayout(16)


@given(
    st.integers(0, 2), st.integers(1, 3), st.sampled_from([5, 16, 33]), st.sampled_from([1, 4, 16]),
    st.integers(1, 64), st.integers(1, 300), st.data(),
)  # fmt: skip
def test_an_admitted_prompt_never_holds_more_than_it_was_admitted_with(
    full: int, windowed: int, window: int, block: int, budget: int, length: int, data: st.DataObject
) -> None:
    most = -(-(window - 1 + budget) // block) + 1
    layout = KvLayout(block, full, windowed, window, block, most)
    done = data.draw(st.integers(0, length - 1))
    needs = layout.needs(length, done)
    while done < length:
        reach = min(length, done + data.draw(st.integers(1, budget)))
        assert layout.held(done, reach) <= needs
        done = reach
    assert layout.decoding(length) <= layout.needs(length)
    longest = layout.longest(needs)
    assert layout.needs(longest) <= needs or full == 0
    assert full == 0 or layout.needs(longest + 1) > needs


def serve(of: Pool, rows: list[tuple[float, int, int]], **keys: object) -> Result:
    return run(fleet_of(of), ListWorkload(rows), LeastOutstanding(), **keys)  # type: ignore[arg-type]


def test_windows_let_more_requests_run_at_once() -> None:
    rows = [(0.0, 8000, 150)] * 16
    small, large = (serve(pool(disable_hybrid_kv_cache_manager=off), rows) for off in (True, False))
    assert float(small.timeline["running"].max()) < 5.0
    assert float(large.requests["queue_s"].max()) < 0.5 * float(small.requests["queue_s"].max())
    assert float(large.requests["e2e_s"].max()) < float(small.requests["e2e_s"].max())
    assert (large.pools[0].kv_groups, small.pools[0].kv_groups) == (7, 1)


def test_the_timeline_shows_the_memory_that_windows_leave_in_use() -> None:
    result = serve(pool(), [(0.0, 8000, 2000)])
    kv, width = result.timeline["kv_use"], result.timeline["bin_s"]
    decode_s = float(result.requests["decode_s"][0])
    used = float((kv * width).sum()) / decode_s * result.pools[0].kv_blocks
    by_hand = sum(layout_tokens(c) for c in range(8001, 10000)) / 1999 / 16  # the prefill adds little
    assert used == pytest.approx(by_hand, rel=0.05)


def layout_tokens(context: int) -> int:
    return context + 6 * min(context, 1024)


def test_a_prompt_beyond_the_memory_is_refused_by_what_its_groups_need() -> None:
    of = pool(kv_blocks=1200)
    longest = kv_layout(of).longest(1199)  # one block is the engine's own
    assert longest == 16 * (1199 // 7)  # short enough that admission counts all of it in each window
    assert serve(of, [(0.0, longest - 5, 6)]).pools[0].preemptions == 0
    with pytest.raises(InputError, match=r"at most \d+ \(pool p"):
        serve(of, [(0.0, longest, 6)])


@pytest.mark.parametrize(
    "change",
    [
        {"engine": EngineSettings(batching="static")},
        {"engine": EngineSettings(swap_bytes=1e9)},
        {"engine": EngineSettings(speculative_tokens=1, speculative_method="mtp", acceptance_rate=0.7)},
    ],
)
def test_windows_give_nothing_back_where_something_may_need_it(change: dict[str, EngineSettings]) -> None:
    of = replace(pool(), **change)
    assert kv_layout(of) == KvLayout(16)
    assert check_fit(of) < 3000


def test_shared_prefixes_keep_windows_whole_in_the_same_memory() -> None:
    of = pool()
    assert kv_layout(of, prefixes=True) == KvLayout(16)
    assert check_fit(of, prefixes=True) == pytest.approx(check_fit(pool(disable_hybrid_kv_cache_manager=True)), abs=1)


def test_fewer_blocks_than_a_token_takes_are_refused() -> None:
    with pytest.raises(InputError, match=r"engine\.kv_blocks=7 .*at least 8"):
        check_fit(pool(kv_blocks=7))

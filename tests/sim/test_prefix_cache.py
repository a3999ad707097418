"""Prefix caching: hits of real traces, shared memory, eviction. test_engine_exact compares it with the oracle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from sim import EngineSettings, Fleet, Pool, Site, catalogue, run
from sim.errors import InputError
from sim.request import Request
from sim.routing import LeastOutstanding
from sim.serving.prefix_cache import PrefixCache
from sim.serving.sequence import Sequence
from sim.workload import TraceWorkload
from sim.workload.prefixes import infinite_cache_share

DATA = Path(os.environ.get("HYBRIDFLEET_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MOONCAKE = DATA / "traces" / "mooncake_fast25"


@pytest.mark.parametrize(("name", "share"), [("conversation_trace", 0.3736), ("synthetic_trace", 0.6512)])
def test_hits_of_an_infinite_cache(name: str, share: float) -> None:
    path = MOONCAKE / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not at hand")
    workload = TraceWorkload(path, sort=True)
    assert infinite_cache_share(workload) == pytest.approx(share, abs=5e-5)


def trace(path: Path, rows: list[tuple[int, int, int, list[int]]]) -> TraceWorkload:
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    path.write_text("".join(json.dumps(dict(zip(keys, row))) + "\n" for row in rows))
    return TraceWorkload(path, prefix_unit=32)


def serve(workload: TraceWorkload, caching: bool, blocks: int = 1000) -> dict[str, np.ndarray]:
    engine = EngineSettings(kv_blocks=blocks, prefix_caching=caching)
    pool = Pool("p", catalogue.model("llama_3_1_8b"), catalogue.xpu("h100_sxm"), engine=engine)
    return run(Fleet((Site("s", "cloud", (pool,)),)), workload, LeastOutstanding()).requests


def test_a_second_turn_finds_the_first(tmp_path: Path) -> None:
    workload = trace(tmp_path / "t.jsonl", [(0, 640, 4, list(range(20))), (5000, 704, 4, list(range(22)))])
    cold, warm = serve(workload, False), serve(workload, True)
    assert cold["cached_tokens"].tolist() == [0, 0]
    assert warm["cached_tokens"].tolist() == [0, 640]
    assert warm["ttft_s"][0] == cold["ttft_s"][0]
    assert warm["ttft_s"][1] < cold["ttft_s"][1]


def test_the_last_token_is_always_computed(tmp_path: Path) -> None:
    workload = trace(tmp_path / "t.jsonl", [(0, 64, 4, [1, 2]), (5000, 64, 4, [1, 2])])
    assert serve(workload, True)["cached_tokens"].tolist() == [0, 32]


def test_idle_prefixes_are_evicted_oldest_first(tmp_path: Path) -> None:
    rows = [(0, 320, 2, list(range(10))), (1000, 320, 2, list(range(10, 20))), (2000, 640, 2, list(range(20, 40))),
            (3000, 321, 2, list(range(10, 21))), (4000, 321, 2, list(range(11)))]  # fmt: skip
    # the third prompt needs 41 of 63 blocks and leaves room for 11 idle units: the second prompt's ten, fallen idle
    # last, and of the first prompt's the one at its root
    cached = serve(trace(tmp_path / "t.jsonl", rows), True, blocks=64)["cached_tokens"].tolist()
    assert cached == [0, 0, 0, 320, 32]


def test_shared_blocks_count_once() -> None:
    cache = PrefixCache(16, 32)
    first, second = (Sequence(Request(i, 0.0, 65, 1, hashes=(1, 2)), 0.0, lambda _: None) for i in range(2))
    cache.acquire(first, cache.hits(first))
    cache.register(first, first.request.prompt)
    hits = cache.hits(second)
    assert cache.shared_blocks(hits) == 4
    cache.acquire(second, hits)
    assert cache.saved == 4
    cache.release(first)
    assert cache.saved == 0
    cache.release(second)
    assert cache.idle_blocks == 4
    cache.evict(2)
    assert cache.idle_blocks == 2
    assert cache.hits(second) == [1]  # the deepest unit goes first


def test_a_unit_that_is_no_multiple_of_a_block_is_refused() -> None:
    with pytest.raises(InputError, match=r"multiple of engine\.block_size"):
        PrefixCache(16, 40)


def test_evicted_prefixes_come_back_from_the_host() -> None:
    from sim.serving.prefix_cache import PrefixCache
    from sim.serving.sequence import Sequence

    def sequence(number: int, *hashes: int) -> Sequence:
        return Sequence(Request(number, 0.0, 4 * len(hashes) + 1, 1, 0, 0, hashes), 0.0, lambda _: None)

    cache = PrefixCache(4, 4, host_units=3)
    first = sequence(0, 1, 2, 3, 4)
    cache.register(first, 16)
    cache.release(first)
    cache.evict(1)  # the deepest units leave first, and the host keeps three
    assert cache.idle_blocks == 1
    again = sequence(1, 1, 2, 3, 4, 5)
    assert cache.hits(again) == [1, 2, 3, 4]
    cache.acquire(again, cache.hits(again))
    assert (cache.loaded, cache.loads, again.done) == (3, 3, 16)
    cache.release(again)
    cache.evict(0)  # 4 and 3 and 2 again, then 1: the host drops the one longest unused, which is 4
    assert cache.hits(sequence(2, 1, 2, 3, 4)) == [1, 2, 3]
    gone = PrefixCache(4, 4)
    gone.register(first := sequence(0, 1, 2), 8)
    gone.release(first)
    gone.evict(0)
    assert gone.hits(sequence(1, 1, 2)) == []

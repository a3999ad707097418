"""Documents in prompts: which are found, what finding them takes, whose KV is kept, and what the answers gain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sim import Constant, Fleet, InputError, Link, Site
from sim.quality import QualityModel
from sim.results import STATUSES
from sim.retrieval import Corpus, VectorSearch
from sim.routing import CloudOnly, FineTuned, LongContext, Rag
from tests.sim.conftest import fleet_of, pool, simulate, xpu

COMPLETED = STATUSES.index("completed")
FAR = [(10.0 * i, 20, 10) for i in range(40)]  # never two at once
ENGINE = {"block_size": 16, "kv_blocks": 4000, "max_num_batched_tokens": 64, "max_num_seqs": 64}
HALF = {"mmlu": 0.5}
MMLU = QualityModel("mmlu", 0.3)


def stages(**answer: Any) -> Fleet:
    """A pool that embeds, one that reranks, and one that answers."""
    last = pool("answer", xpu=xpu(3.0), quality=HALF, **({"engine": ENGINE} | answer))
    return fleet_of(pool("embed"), pool("rerank", engine=ENGINE), last)


def rag(count: int = 100, **settings: Any) -> Rag:
    chunk_tokens = settings.pop("chunk_tokens", 32)
    corpus = Corpus(count, chunk_tokens, settings.pop("popularity", "uniform"))
    search = settings.pop("search", VectorSearch(0.5, 100, measured_chunks=400, exponent=0.5))
    return Rag(corpus, search, **{"chunks": 2, "candidates": 3} | settings)


def of_role(result: Any, role: str, name: str) -> np.ndarray:
    legs = result.legs
    return legs[name][legs["role"] == role]


def test_retrieval_is_embedding_search_and_reranking_one_after_the_other() -> None:
    result = simulate(stages(), FAR, rag())
    requests, embedded = result.requests, of_role(result, "embed", "e2e_s")
    reranked = of_role(result, "rerank", "e2e_s").reshape(40, 3)  # from the client's arrival
    # a quarter of the measured chunks, exponent 0.5: half of 0.5 s
    begun = embedded + 0.25
    assert (reranked > begun[:, None]).all()
    assert of_role(result, "rerank", "uplink_s") == pytest.approx(np.repeat(begun, 3))
    assert requests["retrieval_s"] == pytest.approx(reranked.max(axis=1))
    assert requests["uplink_s"] == pytest.approx(requests["retrieval_s"])  # no network
    assert set(of_role(result, "embed", "prompt_tokens")) == {20}
    assert set(of_role(result, "rerank", "prompt_tokens")) == {20 + 32}
    assert set(of_role(result, "answer", "prompt_tokens")) == {20 + 2 * 32}
    assert set(requests["prompt_tokens"]) == {20}
    assert set(requests["context_tokens"]) == {64}
    assert set(requests["legs"]) == {5}
    assert set(requests["tokens_wasted"]) == {0}
    assert requests["energy_wasted_j"].sum() == 0.0
    plain = simulate(stages(), FAR, rag(rerank=None, chunk_tokens=32)).requests
    assert plain["retrieval_s"] == pytest.approx(embedded + 0.25)
    assert [any("vector search" in each for each in totals.incomplete) for totals in result.pools] == [
        True,
        False,
        False,
    ]


def test_searches_wait_for_a_free_server() -> None:
    search = VectorSearch(2.0, 1000, measured_chunks=10, exponent=0.0, servers=2)
    assert [search.done_s(now) for now in (0.0, 0.5, 1.0, 1.0, 9.0)] == [2.0, 2.5, 4.0, 4.5, 11.0]
    assert VectorSearch(1.0, 1e8).duration_s == pytest.approx(20.0, rel=0.01)  # 20 times, by its source


def test_chunks_come_from_one_site_to_another_and_questions_from_clients() -> None:
    sites = (
        Site("edge", "edge", (pool("embed"),), Constant(100.0)),
        Site("cloud", "cloud", (pool("answer", engine=ENGINE),), Constant(100.0)),
    )
    links = (
        Link("near", "client", "edge", 0.01, up_bytes_per_s=1000.0),
        Link("up", "edge", "cloud", 0.04, up_bytes_per_s=1e4),
    )
    result = simulate(Fleet(sites, (*links, Link("far", "client", "cloud", 0.1))), FAR, rag(rerank=None))
    requests, legs = result.requests, result.legs
    embed = legs["uplink_s"] + legs["queue_s"] + legs["prefill_s"]
    embed = embed[legs["role"] == "embed"]
    assert embed.min() > 0.01 + 20 * 4 / 1000.0  # the question's bytes
    assert requests["retrieval_s"] == pytest.approx(embed + 0.25)
    # question and chunks go up from the edge
    assert requests["uplink_s"] - requests["retrieval_s"] == pytest.approx(0.04 + 84 * 4 / 1e4)
    assert requests["downlink_s"] == pytest.approx(0.1)


def test_hot_documents_are_kept_where_they_come_first_again() -> None:
    """Two chunks in the whole index, so every prompt holds both: chunk 0 first, or chunk 1."""
    cold = simulate(stages(), FAR, rag(2, candidates=2))
    warm = simulate(stages(engine=ENGINE | {"prefix_caching": True}), FAR, rag(2, candidates=2))
    sorted_ = simulate(stages(engine=ENGINE | {"prefix_caching": True}), FAR, rag(2, candidates=2, hot_first=True))
    assert set(cold.requests["cached_tokens"]) == {0}
    assert sorted(warm.requests["cached_tokens"]) == [0, 0] + [64] * 38  # both orders are computed once
    assert sorted(sorted_.requests["cached_tokens"]) == [0] + [64] * 39
    assert warm.requests["prefill_s"].sum() < cold.requests["prefill_s"].sum()


def test_names_stand_for_chunks_and_all_before_them() -> None:
    corpus = Corpus(10, 32, unit=16)
    one, two, other = corpus.names([3, 4]), corpus.names([3, 5]), corpus.names([4, 3])
    assert len(one) == len(set(one)) == 4
    assert one[:2] == two[:2]
    assert not set(one[2:]) & set(two)
    assert not set(one) & set(other)
    assert corpus.names([3, 4]) == one
    assert not set(corpus.names([3], adapter=1)) & {*one, *two, *other}
    assert max(one) < 0


def test_what_a_question_finds_depends_on_its_number_alone() -> None:
    corpus = Corpus(1000, 16, "zipf")
    corpus.begin(7)
    found = [corpus.find(i, 8) for i in range(3000)]
    assert all(len(set(each)) == 8 for each in found)
    assert [corpus.find(i, 3) for i in (5, 2)] == [found[5][:3], found[2][:3]]
    firsts = np.bincount([each[0] for each in found], minlength=1000) / 3000
    share = 1.0 / (1.0 / np.arange(1, 1001)).sum()
    assert firsts[0] == pytest.approx(share, abs=0.02)
    assert firsts[1] == pytest.approx(share / 2, abs=0.015)
    corpus.begin(8)
    assert corpus.find(5, 8) != found[5]
    assert sorted(Corpus(5, 16, [1.0, 0.0, 0.0, 0.0, 0.0]).find(0, 5)) == [0, 1, 2, 3, 4]


def test_documents_lift_the_score_and_spoil_no_answer() -> None:
    rows = [(0.5 * i, 20, 2) for i in range(2000)]
    fleet = fleet_of(pool("cloud", xpu=xpu(3.0), quality=HALF, engine=ENGINE))
    bare = simulate(fleet, rows, CloudOnly(), quality=MMLU).requests["quality"]
    tuned = simulate(fleet, rows, FineTuned(CloudOnly(), 0.1), quality=MMLU).requests["quality"]
    context = LongContext(Corpus(4, 16), accuracy_gain=0.3)
    read = simulate(fleet, rows, context, quality=MMLU).requests["quality"]
    assert tuned.mean() - bare.mean() == pytest.approx(0.1, abs=0.03)
    assert read.mean() - bare.mean() == pytest.approx(0.3, abs=0.04)
    assert (tuned >= bare).all()
    assert (read >= tuned).all()
    assert np.isnan(simulate(fleet, FAR, context).requests["quality"]).all()  # nothing is known without a task


def test_a_long_context_is_computed_once_where_prefixes_are_kept() -> None:
    fleet = fleet_of(pool("cloud", xpu=xpu(3.0), engine=ENGINE | {"prefix_caching": True}))
    requests = simulate(fleet, FAR, LongContext(Corpus(10, 32))).requests
    assert requests["context_tokens"].tolist() == [320] * 40
    assert requests["cached_tokens"].tolist() == [0] + [320] * 39
    assert requests["retrieval_s"].tolist() == [0.0] * 40


def test_a_tuned_answer_streams_as_its_router_serves_it() -> None:
    fleet = fleet_of(pool("cloud"))
    plain, tuned = (simulate(fleet, FAR, router).requests for router in (CloudOnly(), FineTuned(CloudOnly(), 0.1)))
    for name in ("ttft_s", "e2e_s", "energy_j", "token_qoe"):
        assert tuned[name] == pytest.approx(plain[name])


def test_without_embeddings_questions_are_answered_without_documents() -> None:
    sites = Site(
        "site", "cloud", (pool("embed", outages=((95.0, 205.0),)), pool("answer", quality=HALF, engine=ENGINE))
    )
    requests = simulate(Fleet((sites,)), FAR, rag(rerank=None, accuracy_gain=0.5), quality=MMLU).requests
    out = (requests["arrival_s"] > 95.0) & (requests["arrival_s"] < 205.0)
    assert out.sum() == 11
    assert (requests["status"] == COMPLETED).all()
    assert set(requests["context_tokens"][out]) == {0}
    assert set(requests["context_tokens"][~out]) == {64}
    assert set(requests["quality"][~out]) == {1.0}
    assert 0.0 in requests["quality"][out]


def test_a_prompt_that_no_pool_holds_is_refused_or_turned_away() -> None:
    fleet = fleet_of(pool("cloud", engine=ENGINE | {"kv_blocks": 10}))
    with pytest.raises(InputError, match="prompt \\+ output tokens"):
        simulate(fleet, FAR[:1], LongContext(Corpus(10, 32)))
    requests = simulate(fleet, FAR[:1], LongContext(Corpus(10, 32)), oversize="reject").requests
    assert [STATUSES[each] for each in requests["status"]] == ["rejected"]


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: Corpus(0, 32), "router.documents.count"),
    (lambda: Corpus(10, 40), "router.documents.chunk_tokens"),
    (lambda: Corpus(10, 32, unit=0), "router.documents.unit"),
    (lambda: VectorSearch(-1.0), "router.search.search_s"),
    (lambda: VectorSearch(1.0, servers=0), "router.search.servers"),
    (lambda: VectorSearch(1.0, exponent=2.0), "router.search.exponent"),
    (lambda: Rag({"count": 3}, VectorSearch(1.0)), "router.documents"),  # type: ignore[arg-type]
    (lambda: Rag(Corpus(30, 32), 3.0), "router.search"),  # type: ignore[arg-type]
    (lambda: rag(chunks=4, candidates=3), "router.candidates"),
    (lambda: rag(count=2), "router.candidates"),
    (lambda: rag(accuracy_gain=2.0), "router.accuracy_gain"),
    (lambda: FineTuned("cloud"), "router.router"),
    (lambda: simulate(fleet_of(pool("answer")), FAR, rag()), "router.embed"),
]


@pytest.mark.parametrize(("make", "key"), BAD)
def test_bad_settings_name_their_key(make: Callable[[], Any], key: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key

"""Tenants, priorities, deadlines, adapters and images: in the shares asked for, each from its own random stream."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sim.errors import InputError
from sim.qoe import SLOClass
from sim.request import NO_TRAITS, Traits
from sim.rng import Streams
from sim.workload import Fixed, FixedLength, LogNormal, Poisson, SessionWorkload, SyntheticWorkload, Workload

CLASSES = (SLOClass("chat", ttft_s=1.0, tpot_s=0.1, e2e_s=4.0), SLOClass("batch", ttft_s=2.0))
N = 40_000
ALL: dict[str, Any] = {
    "tenants": {"count": 5, "popularity": "zipf"},
    "priorities": {"levels": [0, 1], "weights": [1, 3]},
    "deadlines": {"seconds": 30.0, "sigma": 0.5},
    "adapters": {"count": 50, "popularity": "zipf", "base_share": 0.2},
    "images": {"tokens": LogNormal(median=300, sigma=0.5), "share": 0.5, "counts": {"mean": 2.0}},
}
PLURALS = dict(zip(ALL, ("tenant", "priority", "deadline_s", "adapter", "images")))


def synthetic(**traits: Any) -> SyntheticWorkload:
    """Requests of 100 and 21 tokens, three of four of the class `chat`."""
    limit = traits.pop("limit", N)
    return SyntheticWorkload(Poisson(4.0), Fixed(100, 21), limit=limit, slo_classes=CLASSES, slo_mix=(3, 1), **traits)


def columns(workload: Workload, seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Columns of all requests, traits among them."""
    batches = list(workload.batches(Streams(seed)))
    names = ("arrival_s", "prompt_tokens", "output_tokens", "slo_class")
    found = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names}
    rows = [row for batch in batches for row in batch.traits or [NO_TRAITS] * len(batch)]
    return found | dict(zip(Traits._fields, map(np.array, zip(*rows))))


def shares(numbers: np.ndarray[Any, np.dtype[Any]]) -> dict[int, float]:
    return {number: count / len(numbers) for number, count in sorted(Counter(numbers.tolist()).items())}


def test_nothing_is_set_unless_asked() -> None:
    assert all(batch.traits is None for batch in synthetic().batches(Streams(0)))
    assert all(batch.hashes is None for batch in synthetic().batches(Streams(0)))


def test_tenants_and_their_shares_of_the_rate() -> None:
    assert shares(columns(synthetic(tenants={"popularity": [5, 3, 2]}))["tenant"]) == pytest.approx(
        {0: 0.5, 1: 0.3, 2: 0.2}, rel=0.03
    )
    zipf = shares(columns(synthetic(tenants={"count": 4, "popularity": "zipf", "exponent": 2}))["tenant"])
    total = 1 + 1 / 4 + 1 / 9 + 1 / 16
    assert zipf == pytest.approx({k: (k + 1) ** -2 / total for k in range(4)}, rel=0.03)
    even = shares(columns(synthetic(tenants={"count": 3}))["tenant"])
    assert even == pytest.approx(dict.fromkeys(range(3), 1 / 3), rel=0.03)


def test_priorities_by_request_tenant_and_class() -> None:
    drawn = columns(synthetic(priorities={"levels": [-1, 5], "weights": [1, 3]}))["priority"]
    assert shares(drawn) == pytest.approx({-1: 0.25, 5: 0.75}, rel=0.03)
    told = columns(synthetic(tenants={"count": 3}, priorities={"levels": [7, 8, 7], "by": "tenant"}))
    np.testing.assert_array_equal(told["priority"], np.array([7, 8, 7])[told["tenant"]])
    told = columns(synthetic(priorities={"levels": [3, 9], "by": "class"}))
    np.testing.assert_array_equal(told["priority"], np.array([3, 9])[told["slo_class"]])


def test_deadlines_by_hand() -> None:
    assert set(columns(synthetic(deadlines={"seconds": 9}))["deadline_s"]) == {9.0}
    told = columns(synthetic(deadlines={"seconds": "slo"}))
    # chat: the lesser of 4 s and 1 s + 20 times 0.1 s; batch has no bound on its end.
    np.testing.assert_allclose(told["deadline_s"], np.where(told["slo_class"] == 0, 3.0, np.inf))
    told = columns(synthetic(deadlines={"seconds": {"batch": 60}}))
    np.testing.assert_allclose(told["deadline_s"], np.where(told["slo_class"] == 0, np.inf, 60.0))
    spread = columns(synthetic(deadlines={"seconds": 10.0, "sigma": 0.5}))["deadline_s"]
    assert np.median(spread) == pytest.approx(10.0, rel=0.03)
    assert np.log(spread).std() == pytest.approx(0.5, rel=0.03)


def test_adapters_and_the_base() -> None:
    found = shares(columns(synthetic(adapters={"count": 3, "popularity": "zipf", "base_share": 0.4}))["adapter"])
    assert found == pytest.approx({0: 0.4, 1: 0.6 * 6 / 11, 2: 0.6 * 3 / 11, 3: 0.6 * 2 / 11}, rel=0.03)
    assert shares(columns(synthetic(adapters={"count": 3, "base_share": 1}))["adapter"]) == {0: 1.0}
    assert 0 not in shares(columns(synthetic(adapters={"count": 3}))["adapter"])


def test_images_and_their_tokens() -> None:
    found = columns(synthetic(images={"tokens": 576, "share": 0.5, "counts": {"weights": [3, 0, 1]}}))
    assert shares(found["images"]) == pytest.approx({0: 0.5, 1: 0.375, 3: 0.125}, rel=0.03)
    np.testing.assert_array_equal(found["image_tokens"], 576 * found["images"])
    np.testing.assert_array_equal(found["prompt_tokens"], 100 + 576 * found["images"])
    inside = columns(synthetic(images={"tokens": 60, "counts": {"weights": [1, 1]}, "added": False}))
    assert set(inside["prompt_tokens"]) == {100}
    assert set(inside["image_tokens"]) == {60, 100}  # two images of 60 are cut to the prompt
    drawn = columns(synthetic(images={"tokens": LogNormal(mean=300, sigma=0.5), "counts": {"mean": 2.5}}))
    assert drawn["images"].mean() == pytest.approx(2.5, rel=0.03)
    assert drawn["image_tokens"].sum() / drawn["images"].sum() == pytest.approx(300, rel=0.03)


@pytest.mark.parametrize("left_out", ALL)
def test_each_has_a_stream_of_its_own(left_out: str) -> None:
    whole = columns(synthetic(**ALL))
    rest = columns(synthetic(**{name: value for name, value in ALL.items() if name != left_out}))
    for name, column in whole.items():
        if name == PLURALS[left_out]:
            assert len(set(rest[name].tolist())) == 1
        elif left_out != "images" or name not in ("image_tokens", "prompt_tokens"):
            np.testing.assert_array_equal(column, rest[name], err_msg=name)
    plain = columns(synthetic())
    for name in ("arrival_s", "output_tokens", "slo_class"):
        np.testing.assert_array_equal(whole[name], plain[name])
    np.testing.assert_array_equal(whole["prompt_tokens"] - whole["image_tokens"], plain["prompt_tokens"])


def test_equal_seeds_equal_traits_and_longer_runs_append() -> None:
    first, again, other = columns(synthetic(**ALL)), columns(synthetic(**ALL)), columns(synthetic(**ALL), seed=1)
    longer = columns(synthetic(**ALL, limit=N + 5000))
    for name in ("tenant", "priority", "deadline_s", "adapter", "images", "image_tokens"):
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_array_equal(first[name], longer[name][:N])
        assert (first[name] != other[name]).any()


def test_a_conversation_keeps_its_sender_and_images_stay_in_its_context() -> None:
    workload = SessionWorkload(
        Poisson(1.0), Fixed(10, 5), FixedLength(3), {"median_s": 1.0}, limit=3000, slo_classes=CLASSES, slo_mix=(3, 1),
        tenants={"count": 9}, adapters={"count": 9}, priorities={"levels": [0, 1]}, deadlines={"seconds": "slo"},
        images={"tokens": 50, "share": 0.5},
    )  # fmt: skip
    turns: dict[int, list[tuple[Traits, int, int]]] = {}
    for batch in workload.batches(Streams(0)):
        assert batch.traits is not None
        assert batch.session is not None
        for row in zip(batch.traits, batch.prompt_tokens.tolist(), batch.slo_class.tolist(), batch.session.tolist()):
            turns.setdefault(row[3], []).append(row[:3])
    for rows in turns.values():
        assert len({(traits.tenant, traits.adapter, traits.priority, slo) for traits, _, slo in rows}) == 1
        images = np.cumsum([traits.images for traits, _, _ in rows])
        assert [prompt for _, prompt, _ in rows] == [10 + 15 * i + 50 * int(images[i]) for i in range(len(rows))]
        assert all(math.isclose(traits.deadline_s, 1.4 if slo == 0 else math.inf) for traits, _, slo in rows)
    assert len({rows[0][0].tenant for rows in turns.values()}) == 9


BAD = [
    ({"tenants": {}}, "workload.tenants.count"),
    ({"tenants": 3}, "workload.tenants"),
    ({"tenants": {"count": 1.5}}, "workload.tenants.count"),
    ({"tenants": {"count": 2, "popularity": [1, -1]}}, "workload.tenants.popularity"),
    ({"tenants": {"count": 2, "exponent": 1}}, "workload.tenants.exponent"),
    ({"tenants": {"count": 2, "weights": [1, 1]}}, "workload.tenants.weights"),
    ({"priorities": {}}, "workload.priorities.levels"),
    ({"priorities": {"levels": []}}, "workload.priorities.levels"),
    ({"priorities": {"levels": [0.5]}}, "workload.priorities.levels"),
    ({"priorities": {"levels": [0, 1], "weights": [1]}}, "workload.priorities.weights"),
    ({"priorities": {"levels": [0, 1], "weights": "zipf"}}, "workload.priorities.weights"),
    ({"priorities": {"levels": [0, 1], "weights": [1, 1], "by": "class"}}, "workload.priorities.weights"),
    ({"priorities": {"levels": [0], "by": "user"}}, "workload.priorities.by"),
    ({"priorities": {"levels": [0], "by": "tenant"}}, "workload.priorities.by"),
    ({"priorities": {"levels": [0], "by": "tenant"}, "tenants": {"count": 2}}, "workload.priorities.levels"),
    ({"priorities": {"levels": [0], "by": "class"}}, "workload.priorities.levels"),
    ({"deadlines": {}}, "workload.deadlines.seconds"),
    ({"deadlines": {"seconds": None}}, "workload.deadlines.seconds"),
    ({"deadlines": {"seconds": 0}}, "workload.deadlines.seconds"),
    ({"deadlines": {"seconds": "soon"}}, "workload.deadlines.seconds"),
    ({"deadlines": {"seconds": {"voice": 3}}}, "workload.deadlines.seconds.voice"),
    ({"deadlines": {"seconds": {"chat": -3}}}, "workload.deadlines.seconds.chat"),
    ({"deadlines": {"seconds": 1, "sigma": 11}}, "workload.deadlines.sigma"),
    ({"adapters": {}}, "workload.adapters.count"),
    ({"adapters": {"count": 2, "base_share": 1.5}}, "workload.adapters.base_share"),
    ({"adapters": {"count": 2, "popularity": None}}, "workload.adapters.popularity"),
    ({"images": {}}, "workload.images.tokens"),
    ({"images": {"tokens": 0}}, "workload.images.tokens"),
    ({"images": {"tokens": 5, "share": 2}}, "workload.images.share"),
    ({"images": {"tokens": 5, "counts": {"mean": 0}}}, "workload.images.counts.mean"),
    ({"images": {"tokens": 5, "counts": 2}}, "workload.images.counts"),
    ({"images": {"tokens": 5, "added": "yes"}}, "workload.images.added"),
]


@pytest.mark.parametrize(("traits", "key"), BAD)
def test_bad_arguments_are_named(traits: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        synthetic(**traits)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [lambda: synthetic(**ALL), lambda: synthetic(tenants={"count": 2})])
def test_traits_are_plain_numbers(make: Callable[[], Workload]) -> None:
    batch = next(make().batches(Streams(0)))
    assert batch.traits is not None
    assert {type(cell) for row in batch.traits for cell in row} <= {int, float}

"""Conversations and shared prefixes: what turns hold, what they have in common, and that memory stays flat."""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from sim.errors import InputError
from sim.rng import Streams
from sim.workload import (
    ConstantRate,
    Fixed,
    FixedLength,
    Gamma,
    Independent,
    LogNormal,
    Poisson,
    SessionWorkload,
    SharedPrefix,
    SyntheticWorkload,
    Workload,
)
from sim.workload.prefixes import infinite_cache_share

LENGTHS = Independent(LogNormal(mean=161, sigma=1.0), LogNormal(mean=338, sigma=0.8))
THINK = {"median_s": 20.0, "sigma": 0.5}


def rows(workload: Workload, seed: int = 0) -> list[tuple[Any, ...]]:
    """(arrival, prompt, output, hashes, session) of every request."""
    found: list[tuple[Any, ...]] = []
    for batch in workload.batches(Streams(seed)):
        session = [-1] * len(batch) if batch.session is None else batch.session.tolist()
        columns = (batch.arrival_s, batch.prompt_tokens, batch.output_tokens)
        hashes = batch.hashes if batch.hashes is not None else [()] * len(batch)
        found.extend(zip(*(column.tolist() for column in columns), hashes, session))
    return found


def sessions(**changes: Any) -> SessionWorkload:
    """Conversations that begin twice a second."""
    arguments: dict[str, Any] = {"lengths": LENGTHS, "turns": {"mean": 3.5}, "think": THINK, "limit": 20_000, **changes}
    return SessionWorkload(arguments.pop("arrivals", Poisson(2.0)), **arguments)


def by_session(found: list[tuple[Any, ...]]) -> dict[int, list[tuple[Any, ...]]]:
    """Turns of each conversation, in order of arrival."""
    groups: dict[int, list[tuple[Any, ...]]] = {}
    for row in found:
        groups.setdefault(row[4], []).append(row)
    return groups


def test_a_conversation_by_hand() -> None:
    # System prompt 8, text 10, answer 6, names of 4 tokens: prompts 18, 34, 50, of which 24 and 40 were there before.
    workload = sessions(
        arrivals=ConstantRate(0.001),
        lengths=Fixed(10, 6),
        turns=FixedLength(3),
        think={"median_s": 5.0, "sigma": 0.0, "output_token_s": 0.5},
        prefix={"tokens": 8, "unit": 4},
        limit=6,
    )
    found = rows(workload)
    assert [row[:3] for row in found] == [
        (0.0, 18, 6), (8.0, 34, 6), (16.0, 50, 6), (1000.0, 18, 6), (1008.0, 34, 6), (1016.0, 50, 6),
    ]  # fmt: skip
    assert [len(row[3]) for row in found[:3]] == [6, 10, 14]
    assert found[0][3][:2] == found[3][3][:2]
    assert not set(found[0][3][2:]) & set(found[3][3][2:])
    # Hits: 0, 24, 40 tokens of the first conversation, 8, 24, 40 of the second.
    assert infinite_cache_share(workload) == pytest.approx((24 + 40 + 8 + 24 + 40) / (2 * (18 + 34 + 50)))


def test_each_turn_begins_with_all_that_was_before() -> None:
    unit = 16
    found = rows(sessions(prefix={"tokens": [100, 300], "groups": 2, "unit": unit}, max_context_tokens=4000))
    seen = 0
    for turns in by_session(found).values():
        for before, after in pairwise(turns):
            known = (before[1] + before[2]) // unit
            assert len(before[3]) == known
            assert after[3][:known] == before[3]
            assert after[1] > before[1] + before[2]
            assert after[0] > before[0]
            seen += 1
    assert seen > 5000
    assert max(row[1] + row[2] for row in found) <= 4000


def test_arrivals_are_in_order_and_sessions_interleave() -> None:
    found = rows(sessions())
    times = [row[0] for row in found]
    assert times == sorted(times)
    assert sum(a[4] != b[4] for a, b in pairwise(found)) > 0.9 * len(found)


def test_statistics_are_those_asked_for() -> None:
    workload = sessions(limit=None, duration_s=20_000.0, prefix={"tokens": 0, "unit": 512})
    found = rows(workload)
    groups = by_session(found)
    begun = [turns for turns in groups.values() if turns[0][0] < 19_000.0]
    assert len(groups) / 20_000 == pytest.approx(2.0, rel=0.03)
    assert np.mean([len(turns) for turns in begun]) == pytest.approx(3.5, rel=0.03)
    assert np.mean([len(turns) == 1 for turns in begun]) == pytest.approx(1 / 3.5, rel=0.03)
    pauses = [b[0] - a[0] for turns in begun for a, b in pairwise(turns)]
    assert np.median(pauses) == pytest.approx(20.0, rel=0.03)
    assert np.mean(pauses) == pytest.approx(20.0 * math.exp(0.125), rel=0.03)
    assert np.mean([turns[0][1] for turns in begun]) == pytest.approx(161, rel=0.03)
    assert np.mean([row[2] for row in found]) == pytest.approx(338, rel=0.03)
    assert workload.expected_requests() == pytest.approx(len(found), rel=0.03)


def test_a_longer_run_begins_with_the_shorter_one_and_seeds_differ() -> None:
    short, long, timed = rows(sessions(limit=3000)), rows(sessions(limit=9000)), rows(sessions(duration_s=600.0))
    assert short == long[:3000]
    assert timed == long[: len(timed)]
    assert long[len(timed)][0] >= 600.0
    assert rows(sessions(limit=3000), seed=1) != short


def test_system_prompts_and_arrivals_move_nothing_else() -> None:
    plain, prompted = rows(sessions()), rows(sessions(prefix={"tokens": 64, "groups": 3}))
    assert [(t, p + 64, o, s) for t, p, o, _, s in plain] == [(t, p, o, s) for t, p, o, _, s in prompted]
    slow, bursty = by_session(rows(sessions(limit=2000))), by_session(rows(sessions(arrivals=Gamma(2.0, 3.0))))
    for number in range(100):
        first = [turn[1:3] for turn in slow.get(number, [])]
        assert first == [turn[1:3] for turn in bursty[number]][: len(first)]


def test_the_longest_context_ends_a_conversation_or_cuts_its_first_turn() -> None:
    room = sessions(arrivals=ConstantRate(1e-3), lengths=Fixed(10, 6), turns=FixedLength(9), limit=3)
    room.max_context_tokens = 40  # turns of 16, 32, 48 tokens: the third does not fit
    assert [row[1:3] for row in rows(room)] == [(10, 6), (26, 6), (10, 6)]
    tight = sessions(lengths=Fixed(100, 60), max_context_tokens=30, prefix={"tokens": 8}, limit=5)
    assert {row[1:3] for row in rows(tight)} == {(9, 21)}


def test_memory_stays_flat() -> None:
    def peak(limit: int) -> int:
        tracemalloc.start()
        # Coarse names: what is looked for is a leak, and to count ten million small objects takes long.
        for _ in sessions(limit=limit, arrivals=Poisson(50.0), prefix={"tokens": 0, "unit": 512}).batches(Streams(0)):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(200_000) < 1.2 * peak(100_000)


def prefixed(**prefix: Any) -> SyntheticWorkload:
    return SyntheticWorkload(Poisson(1.0), Fixed(100, 20), limit=30_000, prefix=prefix)


def test_prefixes_are_shared_by_group_in_the_shares_asked_for() -> None:
    found = rows(prefixed(tokens=[64, 40, 0], groups=3, popularity=[3, 2, 1]))
    lengths = np.array([row[1] for row in found])
    for length, share in ((164, 1 / 2), (140, 1 / 3), (100, 1 / 6)):
        assert np.mean(lengths == length) == pytest.approx(share, rel=0.03)
    first = {row[3][:4] for row in found if row[1] == 164}
    assert len(first) == 1
    assert len({row[3][2] for row in found if row[1] == 140}) == np.sum(lengths == 140)  # 40 tokens fill two units
    assert all(len(row[3]) == (row[1] + row[2]) // 16 for row in found)
    names = [name for row in found for name in row[3][{164: 4, 140: 2, 100: 0}[row[1]] :]]
    assert len(set(names)) == len(names)


def test_a_shared_prefix_by_hand() -> None:
    workload = SyntheticWorkload(Poisson(1.0), Fixed(20, 12), limit=3, prefix={"tokens": 40, "unit": 8})
    assert infinite_cache_share(workload) == pytest.approx(2 * 40 / 180)
    inside = SyntheticWorkload(Poisson(1.0), Fixed(20, 12), limit=3, prefix={"tokens": 40, "unit": 8, "added": False})
    # The prompt of 20 is the text's beginning: two full units, the third holds its own answer.
    assert infinite_cache_share(inside) == pytest.approx(2 * 16 / 60)
    assert [row[1] for row in rows(inside)] == [20, 20, 20]


def test_prefixes_move_no_arrival_and_no_length() -> None:
    base = SyntheticWorkload(Poisson(1.0), LENGTHS, limit=9000)
    shared = SyntheticWorkload(Poisson(1.0), LENGTHS, limit=9000, prefix=SharedPrefix(32, groups=5, popularity="zipf"))
    assert [(t, p + 32, o) for t, p, o, _, _ in rows(base)] == [row[:3] for row in rows(shared)]
    longer = SyntheticWorkload(Poisson(1.0), LENGTHS, limit=12_000, prefix={"tokens": 32, "groups": 5,
                               "popularity": "zipf"})  # fmt: skip
    assert rows(shared) == rows(longer)[:9000]


def test_another_adapter_shares_no_prefix() -> None:
    workload = SyntheticWorkload(
        Poisson(1.0), Fixed(8, 8), limit=500, prefix={"tokens": 32}, adapters={"count": 3, "base_share": 0.25}
    )
    heads: dict[int, set[tuple[int, ...]]] = {}
    for batch in workload.batches(Streams(0)):
        assert batch.hashes is not None
        assert batch.traits is not None
        for names, traits in zip(batch.hashes, batch.traits):
            heads.setdefault(traits.adapter, set()).add(names[:2])
    assert sorted(heads) == [0, 1, 2, 3]
    assert all(len(names) == 1 for names in heads.values())
    assert len(set.union(*heads.values())) == 4


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"turns": None}, "workload.turns"),
        ({"turns": {}}, "workload.turns"),
        ({"turns": {"mean": 0.5}}, "workload.turns.mean"),
        ({"turns": {"mean": 2, "weights": [1]}}, "workload.turns"),
        ({"turns": {"weights": []}}, "workload.turns.weights"),
        ({"turns": {"weights": [0, 0]}}, "workload.turns.weights"),
        ({"turns": {"most": 3}}, "workload.turns.most"),
        ({"think": None}, "workload.think"),
        ({"think": {}}, "workload.think"),
        ({"think": {"median_s": 0}}, "workload.think.median_s"),
        ({"think": {"mean_s": "1"}}, "workload.think.mean_s"),
        ({"think": {"median_s": 1, "mean_s": 1}}, "workload.think"),
        ({"think": {"median_s": 1, "sigma": -1}}, "workload.think.sigma"),
        ({"think": {"median_s": 1, "output_token_s": -1}}, "workload.think.output_token_s"),
        ({"max_context_tokens": 1}, "workload.max_context_tokens"),
        ({"max_context_tokens": 100.5}, "workload.max_context_tokens"),
        ({"max_context_tokens": 100, "prefix": {"tokens": 99}}, "workload.max_context_tokens"),
        ({"prefix": {}}, "workload.prefix.tokens"),
        ({"prefix": {"tokens": -1}}, "workload.prefix.tokens"),
        ({"prefix": {"tokens": [1, 2]}}, "workload.prefix.tokens"),
        ({"prefix": {"tokens": 1, "groups": 0}}, "workload.prefix.groups"),
        ({"prefix": {"tokens": 1, "groups": 2, "popularity": "power"}}, "workload.prefix.popularity"),
        ({"prefix": {"tokens": 1, "groups": 2, "popularity": [1]}}, "workload.prefix.popularity"),
        ({"prefix": {"tokens": 1, "exponent": 2}}, "workload.prefix.exponent"),
        ({"prefix": {"tokens": 1, "popularity": "zipf", "exponent": -1}}, "workload.prefix.exponent"),
        ({"prefix": {"tokens": 1, "unit": 0}}, "workload.prefix.unit"),
        ({"prefix": {"tokens": 1, "added": 1}}, "workload.prefix.added"),
        ({"prefix": {"tokens": 1, "added": False}}, "workload.prefix.added"),
        ({"prefix": 3}, "workload.prefix"),
        ({"limit": None}, "workload.duration_s"),
        ({"limit": 0}, "workload.limit"),
        ({"arrivals": 2.0}, "workload.arrivals"),
        ({"lengths": 2.0}, "workload.lengths"),
        ({"rate": 9.0}, "workload.rate"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        sessions(**changes)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)

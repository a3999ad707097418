"""The first sound of spoken answers, token by token; and deadlines of single requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from analysis.metrics import summarize
from sim import Fleet, InputError, Result, SLOClass, run
from sim.hardware.collectives import Interconnect
from sim.request import Traits
from sim.rng import Streams
from sim.routing import Cascade, CloudOnly, EdgeOnly
from sim.workload.base import RequestBatch
from tests.sim.conftest import CHAT, First, ListWorkload, fleet_of, pool
from tests.sim.test_journeys import SURE, hybrid

ROWS = [(0.004 * i, 20 + 7 * (i % 5), 1 + (13 * i) % 37) for i in range(60)]
SPOKEN = SLOClass("voice", sentence_tokens=8, tts_s=0.25, first_audio_s=10.0)


@dataclass
class WithTraits(ListWorkload):
    """A `ListWorkload` whose requests have these traits."""

    traits: Sequence[Traits] = ()

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        at = 0
        for batch in ListWorkload.batches(self, streams):
            batch.traits = list(self.traits[at : at + len(batch)])
            at += len(batch)
            yield batch


class Keep:
    """Serves on the first pool and notes every token."""

    def __init__(self) -> None:
        self.legs: list[Any] = []

    def handle(self, request: Any, fleet: Any) -> Any:
        leg = yield fleet.serve(fleet.pools[0], keep=True)
        self.legs.append(leg)
        return leg


def ran(fleet: Fleet, router: Any = None, classes: tuple[SLOClass, ...] = (SPOKEN,), **traits: Any) -> Result:
    names = list(traits)
    rows = [Traits(**dict(zip(names, each))) for each in zip(*traits.values())] if traits else [Traits()] * len(ROWS)
    return run(fleet, WithTraits(ROWS, classes, 7, rows), router or First())


FLEETS = {
    "plain": fleet_of(pool()),
    "queued": fleet_of(pool(engine={"max_num_seqs": 4})),
    "preempted": fleet_of(pool(engine={"kv_blocks": 14, "block_size": 16})),
    "drafted": fleet_of(pool(engine={"speculative_tokens": 3, "acceptance_rate": 0.6})),
    "handed over": fleet_of(pool(replicas=3, prefill_replicas=1, kv_link=Interconnect("link", 1e8, 1e-4, "test"))),
}


@pytest.mark.parametrize("name", FLEETS)
def test_the_first_sound_follows_the_token_that_ends_the_sentence(name: str) -> None:
    keep = Keep()
    requests = ran(FLEETS[name], keep).requests
    legs = {leg.request.id: leg for leg in keep.legs}
    expected = [legs[i].times[min(8, row[2]) - 1] - row[0] + 0.25 for i, row in enumerate(ROWS)]
    assert requests["first_audio_s"] == pytest.approx(expected, abs=1e-9)
    plain = ran(FLEETS[name]).requests
    assert plain["first_audio_s"] == pytest.approx(expected, abs=1e-9)
    if name == "preempted":
        assert plain["preemptions"].sum() > 0


def test_a_sentence_begins_behind_what_nobody_hears() -> None:
    hidden = [min(5, row[2] - 1) for row in ROWS]
    keep = Keep()
    heard = ran(fleet_of(pool()), reasoning_tokens=hidden).requests["first_audio_s"]
    ran(fleet_of(pool()), keep)
    legs = {leg.request.id: leg for leg in keep.legs}
    expected = [legs[i].times[min(hidden[i] + 8, row[2]) - 1] - row[0] + 0.25 for i, row in enumerate(ROWS)]
    assert heard == pytest.approx(expected, abs=1e-9)


def test_the_first_sound_of_a_detokenized_sentence_is_late_by_its_delay() -> None:
    """One token, one sentence: the first sound is the first token's, and the last one's, detokenizer included."""
    fleet = fleet_of(pool(engine={"detokenize_s": 1e-3}))
    one = ran(fleet, classes=(SLOClass("voice", sentence_tokens=1, tts_s=0.5),)).requests
    assert one["first_audio_s"] == pytest.approx(one["ttft_s"] + 0.5)
    all_ = ran(fleet, classes=(SLOClass("voice", sentence_tokens=1000, tts_s=0.5),)).requests
    assert all_["first_audio_s"] == pytest.approx(all_["e2e_s"] + 0.5)


def test_the_bound_of_the_first_sound_holds_with_the_others_and_only_where_something_is_spoken() -> None:
    free = ran(fleet_of(pool()), classes=(SLOClass("voice", sentence_tokens=8, tts_s=0.25), CHAT)).requests
    bound = float(np.median(free["first_audio_s"]))
    bounded = ran(fleet_of(pool()), classes=(SLOClass("voice", sentence_tokens=8, tts_s=0.25, first_audio_s=bound),))
    assert free["slo_met"].all()
    assert bounded.requests["slo_met"].tolist() == (free["first_audio_s"] <= bound).tolist()
    assert summarize(bounded)["total"]["first_audio_s"]["p50"] == pytest.approx(bound)
    silent = ran(fleet_of(pool()), classes=(CHAT,))
    assert np.isnan(silent.requests["first_audio_s"]).all()
    assert summarize(silent)["total"]["first_audio_s"]["p50"] is None


def test_an_answer_that_is_held_back_is_spoken_once_it_is_shown() -> None:
    rows = [(float(i), 20, 10) for i in range(20)]
    router = Cascade([EdgeOnly(), CloudOnly()], 0.5)
    requests = run(hybrid(), ListWorkload(rows, (SPOKEN,)), router, quality=SURE).requests
    shown = requests["escalations"] == 0
    assert 0 < shown.sum() < 20
    assert requests["first_audio_s"][shown] == pytest.approx(requests["e2e_s"][shown] + 0.25)
    assert (requests["first_audio_s"][~shown] < requests["e2e_s"][~shown] + 0.25).all()


@pytest.mark.parametrize("keep", [False, True])
def test_a_deadline_decides_whether_the_slo_is_met(keep: bool) -> None:
    free = ran(fleet_of(pool()), classes=(SLOClass("batch"),)).requests
    due = np.where(np.arange(60) % 3 == 0, np.inf, free["e2e_s"] + np.where(np.arange(60) % 3 == 1, 1e-6, -1e-6))
    result = ran(fleet_of(pool()), Keep() if keep else None, (SLOClass("batch"),), deadline_s=due.tolist())
    requests = result.requests
    assert requests["slo_met"].tolist() == [i % 3 != 2 for i in range(60)]
    assert np.isnan(requests["deadline_s"][::3]).all()
    assert requests["deadline_s"][1::3] == pytest.approx(due[1::3])
    total = summarize(result)["total"]
    assert (total["deadlines"], total["deadlines_met"]) == (40, 0.5)
    assert summarize(ran(fleet_of(pool())))["total"]["deadlines_met"] is None


def test_who_never_ends_misses_the_deadline() -> None:
    rows = [(0.0, 20, 10), (0.0, 20, 100_000)]
    workload = WithTraits(rows, (SLOClass("batch"),), 7, [Traits(deadline_s=1e6)] * 2)
    total = summarize(run(fleet_of(pool()), workload, First(), oversize="reject"))["total"]
    assert (total["deadlines"], total["deadlines_met"]) == (2, 0.5)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"sentence_tokens": 2.5}, "sentence_tokens"),
        ({"sentence_tokens": 3, "tts_s": -1.0}, "tts_s"),
        ({"first_audio_s": 1.0}, "sentence_tokens"),
        ({"sentence_tokens": 3, "first_audio_s": 0.0}, "first_audio_s"),
    ],
)
def test_bad_settings_name_their_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as error:
        SLOClass("voice", **settings)
    assert error.value.key == f"slo.voice.{key}"

"""A workload's batches as single requests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from sim.labels import Labels
from sim.request import NO_TRAITS, Request
from sim.rng import Streams
from sim.workload.base import Workload


def requests_of(
    workload: Workload, streams: Streams, horizon_s: float, labels: Labels | None = None
) -> Iterator[Request]:
    """Requests one by one, in order of arrival, those before the horizon; labels learn what each asks."""
    number = 0
    for batch in workload.batches(streams):
        if labels is not None and batch.question is not None:
            labels.ask(batch.question)
        cached = batch.cached_tokens
        for arrival, prompt, output, slo_class, hit, hashes, traits in zip(
            batch.arrival_s.tolist(),
            batch.prompt_tokens.tolist(),
            batch.output_tokens.tolist(),
            batch.slo_class.tolist(),
            repeat(0) if cached is None else cached.tolist(),
            repeat(None) if batch.hashes is None else batch.hashes,
            repeat(NO_TRAITS) if batch.traits is None else batch.traits,
        ):
            if arrival >= horizon_s:
                return
            yield Request(number, arrival, prompt, output, slo_class, hit, hashes, traits)
            number += 1

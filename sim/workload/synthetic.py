"""Requests drawn from an arrival process and a length model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sim.errors import InputError
from sim.qoe import SLOClass
from sim.rng import Streams
from sim.workload import checks
from sim.workload.arrivals import ArrivalProcess
from sim.workload.base import RequestBatch
from sim.workload.lengths import FloatArray, IntArray, LengthModel
from sim.workload.shared_prefix import SharedPrefix, UnitNames, parts
from sim.workload.traits import TraitColumns, TraitModel

#: keys of what sets requests apart
TRAITS = ("prefix", "tenants", "priorities", "deadlines", "adapters", "images", "privacy", "reasoning")


class SyntheticWorkload:
    """A workload of random requests, the same for the same seed.

    Arrivals, lengths, SLO classes, prefixes and each trait have a random stream each: request i keeps its lengths when
    the arrivals change, and a larger `limit` or `duration_s` only appends requests.

    Args:
        arrivals: when requests come.
        lengths: how long they are.
        duration_s: requests arrive in [0, duration_s) [s]; None for no bound.
        limit: most requests; None for no bound. One of the two is needed.
        slo_classes: what the classes of requests expect.
        slo_mix: weight of each class; None puts every request into the first.
        prefix: what prompts have in common; see `sim.workload.shared_prefix`. None for nothing.
        tenants, priorities, deadlines, adapters, images, privacy, reasoning: what sets requests apart; see
            `sim.workload.traits`.
        settings: numbers that a configuration offers at its top level (``workload.rate``) and has already handed to
            `arrivals` or `lengths` by interpolation; one that reached neither is an error.
    """

    def __init__(
        self,
        arrivals: ArrivalProcess,
        lengths: LengthModel,
        duration_s: float | None = None,
        limit: int | None = None,
        slo_classes: Sequence[SLOClass] = (SLOClass(),),
        slo_mix: Sequence[float] | None = None,
        prefix: SharedPrefix | Mapping[str, object] | None = None,
        tenants: object = None,
        priorities: object = None,
        deadlines: object = None,
        adapters: object = None,
        images: object = None,
        privacy: object = None,
        reasoning: object = None,
        **settings: object,
    ) -> None:
        check_sources(arrivals, lengths)
        self.arrivals = arrivals
        self.lengths = lengths
        if duration_s is None and limit is None:
            raise InputError("workload.duration_s", None, "a duration > 0 s, unless workload.limit is given")
        self.duration_s = checks.duration(duration_s, "or null with workload.limit")
        self.limit = checks.limit("workload.limit", limit)
        self.slo_classes = checks.slo_classes(slo_classes)
        self._slo_shares = checks.slo_mix(slo_mix, self.slo_classes)
        self.prefix = checks.optional("workload.prefix", prefix, SharedPrefix)
        self.prefix_unit = self.prefix.unit if self.prefix else 0
        drawn = (tenants, priorities, deadlines, adapters, images)
        self.traits = TraitModel(self.slo_classes, *drawn, privacy=privacy, reasoning=reasoning)
        refuse_unused(settings, (arrivals, lengths))

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        """Yield requests in order of arrival, some 4,000 at a time."""
        lengths_rng, slo_rng = streams.get("lengths"), streams.get("slo")
        extras = _Extras(self, streams) if self.prefix or self.traits.active else None
        left = self.limit
        for times in self.arrivals.times(streams.get("arrivals")):
            drawn = len(times)
            if drawn == 0:
                continue
            prompt, output = self.lengths.sample(lengths_rng, drawn)
            slo_class = draw_slo_classes(slo_rng, self._slo_shares, drawn)
            keep = int(np.searchsorted(times, self.duration_s, side="left"))
            if left is not None:
                keep = min(keep, left)
                left -= keep
            if extras is not None:
                yield from extras.batches(times, prompt, output, slo_class, keep)
            elif keep:
                yield RequestBatch(times[:keep], prompt[:keep], output[:keep], slo_class[:keep])
            if keep < drawn or left == 0:
                return

    def expected_requests(self) -> float | None:
        """About how many requests will come; None for an arrival process that cannot tell."""
        if math.isinf(self.duration_s):
            return self.limit
        expected = getattr(self.arrivals, "expected", None)
        if expected is None:
            return self.limit
        return min(float(expected(self.duration_s)), math.inf if self.limit is None else self.limit)


class _Extras:
    """Prefixes and traits of one run's requests."""

    def __init__(self, workload: SyntheticWorkload, streams: Streams) -> None:
        self._prefix = workload.prefix
        self._draws = workload.traits.start(streams)
        self._rng = streams.get("prefix")
        adapters = workload.traits.adapters
        self._names = self._prefix and UnitNames(self._prefix, adapters.count if adapters else 0)

    def batches(
        self, times: FloatArray, prompt: IntArray, output: IntArray, slo_class: IntArray, keep: int
    ) -> Iterator[RequestBatch]:
        """Yield the first `keep` of the requests; draws are made for all, so that a longer run begins alike."""
        columns = TraitColumns()
        self._draws.senders(columns, slo_class)
        prompt = self._draws.images(columns, prompt)
        output = self._draws.reasoning(columns, output)
        self._draws.deadlines(columns, slo_class, output)
        names: tuple[IntArray, ...] = ()
        if self._prefix and self._names:
            group = self._prefix.draw(self._rng, len(times))
            common = self._prefix.tokens[group]
            prompt = prompt + common if self._prefix.added else prompt
            units = (prompt + output) // self._prefix.unit
            shared = np.minimum(common, prompt) // self._prefix.unit
            first = self._names.reserve(units - shared)
            names = (self._names.text_of(group, columns.adapter), shared, first, units)
        for part in parts(names[3][:keep] if names else None, keep):
            hashes = self._names.rows(*(column[part] for column in names)) if self._names else None
            yield RequestBatch(
                times[part],
                prompt[part],
                output[part],
                slo_class[part],
                hashes=hashes,
                traits=columns.take(part).rows(),
            )


def check_sources(arrivals: object, lengths: object) -> None:
    """Refuse what is no arrival process or no length model."""
    if not callable(getattr(arrivals, "times", None)):
        raise InputError("workload.arrivals", arrivals, "an arrival process, such as Poisson")
    if not callable(getattr(lengths, "sample", None)):
        raise InputError("workload.lengths", lengths, "a length model, such as Copula, Independent or Fixed")


def refuse_unused(settings: Mapping[str, object], parts: Sequence[object], *more: str) -> None:
    """Refuse settings of a configuration's top level that reached none of the parts by interpolation."""
    for name, value in settings.items():
        holders = [part for part in parts if hasattr(part, name)]
        if not any(getattr(part, name) == value for part in holders):
            public = {key for part in parts for key in vars(part) if key[0] != "_"}
            names = sorted(public | {"duration_s", "limit", *TRAITS, *more})
            raise InputError(f"workload.{name}", value, "a setting that its parts use, of " + " | ".join(names))


def draw_slo_classes(rng: np.random.Generator, shares: Sequence[float] | None, n: int) -> IntArray:
    """Draw `n` indices of SLO classes by their cumulative shares; None means the first class."""
    if shares is None:
        return np.zeros(n, dtype=np.int64)
    # The last share is 1 and random() < 1, so the index always names a class; one of weight 0 is never drawn.
    return np.searchsorted(np.array(shares), rng.random(n), side="right").astype(np.int64)

"""Conversations: each turn's prompt holds all turns before it, so that a prefix cache finds them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sim.errors import InputError
from sim.qoe import SLOClass
from sim.request import Traits
from sim.rng import Streams
from sim.workload import checks
from sim.workload.arrivals import ArrivalProcess
from sim.workload.base import RequestBatch
from sim.workload.counts import counts, mean_of
from sim.workload.lengths import FloatArray, IntArray, LengthModel
from sim.workload.shared_prefix import SharedPrefix, UnitNames, parts
from sim.workload.synthetic import check_sources, draw_slo_classes, refuse_unused
from sim.workload.traits import TraitColumns, TraitModel
from sim.workload.turns import Columns, OpenTurns, ThinkTime

_NO_PREFIX = {"tokens": 0}


class SessionWorkload:
    """Conversations of several turns. A turn's prompt is the system prompt, all texts and answers before, and new text.

    The loop is open: a turn comes a think time after the one before it *arrived*, however long its answer took. A
    conversation that would exceed `max_context_tokens` ends before that turn; a first turn that would is cut to fit.
    Tenant, priority, adapter, privacy, SLO class and system prompt are a conversation's, images and deadlines a turn's.

    Args:
        arrivals: when conversations begin.
        lengths: the new text of a turn, and its answer.
        turns: how many turns a conversation has; see `sim.workload.counts`.
        think: the time from one turn's arrival to the next's; see `ThinkTime`.
        max_context_tokens: most tokens of prompt and answer; None for no bound.
        duration_s: requests arrive in [0, duration_s) [s]; None for no bound.
        limit: most requests; None for no bound. One of the two is needed.
        slo_classes, slo_mix, settings: as in `SyntheticWorkload`.
        prefix: the system prompts, and the unit of names; see `sim.workload.shared_prefix`. None for none.
        tenants, priorities, deadlines, adapters, images, privacy: what sets requests apart; see `sim.workload.traits`.
    """

    def __init__(
        self,
        arrivals: ArrivalProcess,
        lengths: LengthModel,
        turns: object,
        think: ThinkTime | Mapping[str, object],
        max_context_tokens: int | None = None,
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
        self.arrivals, self.lengths = arrivals, lengths
        self.turns = counts("workload.turns", turns)
        self.think = checks.made("workload.think", think, ThinkTime)
        if duration_s is None and limit is None:
            raise InputError("workload.duration_s", None, "a duration > 0 s, unless workload.limit is given")
        self.duration_s = checks.duration(duration_s, "or null with workload.limit")
        self.limit = checks.limit("workload.limit", limit)
        self.slo_classes = checks.slo_classes(slo_classes)
        self._slo_shares = checks.slo_mix(slo_mix, self.slo_classes)
        self.prefix = checks.made("workload.prefix", _NO_PREFIX if prefix is None else prefix, SharedPrefix)
        if not self.prefix.added:
            raise InputError("workload.prefix.added", False, "true: a system prompt comes before the text of a turn")
        self.prefix_unit = self.prefix.unit
        self.max_context_tokens = self._room(max_context_tokens)
        if reasoning is not None:
            raise InputError("workload.reasoning", reasoning, "null in conversations, whose context it would not enter")
        self.traits = TraitModel(self.slo_classes, tenants, priorities, deadlines, adapters, images, privacy=privacy)
        refuse_unused(settings, (arrivals, lengths), "turns", "think", "max_context_tokens")

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        """Yield requests in order of arrival, at most 4,096 at a time."""
        source, open_turns, left = SessionSource(self, streams), OpenTurns(), self.limit
        for starts in self.arrivals.times(streams.get("arrivals")):
            if len(starts) == 0:
                continue
            open_turns.add(source.turns(starts))
            last_s = float(starts[-1])
            for batch in source.batches(open_turns.before(last_s), self.duration_s, left):
                left = None if left is None else left - len(batch)
                yield batch
            if last_s >= self.duration_s or left == 0:
                return
        if open_turns:
            yield from source.batches(open_turns.before(math.inf), self.duration_s, left)

    def expected_requests(self) -> float | None:
        """About how many requests will come, a cut at the longest context aside; None where it cannot be told."""
        expected = getattr(self.arrivals, "expected", None)
        if math.isinf(self.duration_s) or expected is None:
            return self.limit
        requests = float(expected(self.duration_s)) * mean_of(self.turns)
        return min(requests, math.inf if self.limit is None else self.limit)

    def _room(self, value: int | None) -> int | None:
        """The longest context, with room for a system prompt, a token of text and one of an answer."""
        if value is None:
            return None
        least = int(self.prefix.tokens.max()) + 2
        accepted = f"a whole number of tokens of at least {least} (system prompt + 2), or null"
        room = checks.number("workload.max_context_tokens", value, accepted, least, checks.MAX_TOKENS)
        if room != int(room):
            raise InputError("workload.max_context_tokens", value, accepted)
        return int(room)


class SessionSource:
    """Draws one run's conversations, in the order in which they begin, and names their prefix units.

    Args:
        workload: whose; streams: of the run.
        keeps_pauses: also keep the think time that follows each turn, as a column `pause_s` [s].
    """

    def __init__(self, workload: SessionWorkload, streams: Streams, keeps_pauses: bool = False) -> None:
        self._keeps_pauses = keeps_pauses
        self._workload, self._prefix, self._think = workload, workload.prefix, workload.think
        self._draws = workload.traits.start(streams)
        names = ("lengths", "slo", "prefix", "turns", "think")
        self._lengths, self._slo, self._texts, self._turns, self._pauses = (streams.get(name) for name in names)
        adapters = workload.traits.adapters
        self._names = UnitNames(workload.prefix, adapters.count if adapters else 0)
        self._begun = 0

    def turns(self, starts: FloatArray) -> Columns:
        """All turns of the conversations that begin at these times [s], as columns, conversation by conversation."""
        workload, n = self._workload, len(starts)
        senders = TraitColumns()
        slo_class = draw_slo_classes(self._slo, workload._slo_shares, n)
        self._draws.senders(senders, slo_class)
        group = self._prefix.draw(self._texts, n)
        turns = workload.turns.quantile(self._turns.random(n))
        row = np.repeat(np.arange(n), turns)
        first = np.cumsum(turns) - turns
        text, answer = workload.lengths.sample(self._lengths, len(row))
        columns = senders.take(row)
        text = self._draws.images(columns, text)
        system = self._prefix.tokens[group][row]
        text, answer = self._fitted(text, answer, first, system[first])
        if columns.image_tokens is not None:
            columns.image_tokens = np.minimum(columns.image_tokens, text)
        self._draws.deadlines(columns, slo_class[row], answer)
        pauses = self._think.sample(self._pauses, answer)
        total = system + _before(text + answer, first, row) + text + answer
        units, shared = total // self._prefix.unit, system // self._prefix.unit
        fits = total <= (math.inf if workload.max_context_tokens is None else workload.max_context_tokens)
        own = np.maximum.reduceat(np.where(fits, units, 0), first) - shared[first]
        found = {
            "arrival_s": starts[row] + _before(pauses, first, row),
            "prompt": total - answer,
            "output": answer,
            "slo_class": slo_class[row],
            "session": self._begun + row,
            "text": self._names.text_of(group, senders.adapter)[row],
            "shared": shared,
            "first": self._names.reserve(own)[row],
            "units": units,
            "pause_s": pauses if self._keeps_pauses else None,
            **{f"trait {name}": getattr(columns, name) for name in Traits._fields},
        }
        self._begun += n
        return {name: column[fits] for name, column in found.items() if column is not None}

    def hashes(self, turns: Columns, part: slice) -> list[tuple[int, ...]]:
        """Names of the prefix units of some turns."""
        return self._names.rows(*(turns[name][part] for name in ("text", "shared", "first", "units")))

    def batches(self, turns: Columns, end_s: float, left: int | None) -> Iterator[RequestBatch]:
        """Turn columns in order of arrival into batches: those before `end_s` [s], and at most `left`."""
        n = int(np.searchsorted(turns["arrival_s"], end_s, side="left"))
        n = n if left is None else min(n, left)
        traits = traits_of(turns)
        for part in parts(turns["units"][:n], n):
            yield RequestBatch(
                turns["arrival_s"][part],
                turns["prompt"][part],
                turns["output"][part],
                turns["slo_class"][part],
                hashes=self.hashes(turns, part),
                traits=traits.take(part).rows(),
                session=turns["session"][part],
            )

    def _fitted(self, text: IntArray, answer: IntArray, first: IntArray, system: IntArray) -> tuple[IntArray, IntArray]:
        """Cut first turns to the longest context: their answers to what leaves a token of text, then their texts."""
        if (most := self._workload.max_context_tokens) is not None:
            text, answer = text.copy(), answer.copy()
            answer[first] = np.minimum(answer[first], most - system - 1)
            text[first] = np.minimum(text[first], most - system - answer[first])
        return text, answer


def traits_of(turns: Columns) -> TraitColumns:
    """What sets turns apart."""
    return TraitColumns(**{name: turns.get(f"trait {name}") for name in Traits._fields})


def _before(values: Any, first: IntArray, row: IntArray) -> Any:
    """Sums of the values before each one, within its conversation; exactly 0 for the first."""
    sums = np.cumsum(values) - values if values.dtype == np.int64 else np.concatenate([[0.0], np.cumsum(values)[:-1]])
    return sums - sums[first][row]

"""What a run remembers: one flat record a request, the step clocks while they are needed, and time series.

Requests are recorded as they end. Now and then the clocks are *folded*: time series and gaps take in the new rows, the
requests that ended get their longest gap and QoE, and rows that no living sequence needs are dropped. Where a pool has
detokenizers, gaps and QoE are read from the clock as clients see it (`sim.delivery`).
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import qoe
from sim.delivery import ClientClocks, Ended, Phases
from sim.fleet.pool import LivePool
from sim.request import Request
from sim.results import STATUSES
from sim.serving import step_clock
from sim.serving.detokenizer import Detokenizer
from sim.serving.sequence import Sequence
from sim.serving.step_clock import Gaps
from sim.serving.timer import Timer
from sim.speech import Speech
from sim.stalls import Stalls
from sim.timeline import Series
from sim.visible import Hidden, seen, token_at

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: columns of a record, in order
FIELDS = (
    "request_id", "arrival_s", "status", "slo_class", "pool", "replica", "prompt_tokens", "output_tokens",
    "queued_s", "scheduled_s", "first_s", "last_s", "downlink_s", "row", "last_row", "preemptions", "cached_tokens",
    "prefill_s", "prefill_j", "prefill_g", "decode_s", "decode_j", "decode_g", "waste_s", "waste_j", "waste_g",
    "prefill_facility_j", "decode_facility_j", "waste_facility_j", "tenant",
    "deadline_s", "prefill_usd", "decode_usd", "waste_usd",
)  # fmt: skip
COLUMN = {name: index for index, name in enumerate(FIELDS)}
#: five more, found when the clocks are folded; delays are those of the first and last token behind the engine
DERIVED = ("itl_max_s", "token_qoe", "token_qoe_v2", "first_delay_s", "last_delay_s")

COMPLETED, REJECTED, IN_FLIGHT = (STATUSES.index(name) for name in ("completed", "rejected", "in_flight"))
FOLD_ROWS = 1 << 18  #: clock rows in memory at which they are folded
WALK_TOGETHER = 256  #: stalled requests whose tokens are walked at once
FOLD_CHECK = 1 << 13  #: records between two looks at how many rows there are
NOWHERE = (0.0, 0.0, 0.0)


def prices_of(seq: Sequence) -> tuple[float, ...]:
    """Energy of its phases times the tariff, where that varies [J USD/kWh]."""
    return tuple(getattr(weight, "usd", 0.0) for weight in (seq.prefill_g, seq.decode_g, seq.waste_g))


def whose(request: Request) -> tuple[int, float]:
    """Tenant and deadline of a request."""
    return request.traits.tenant, request.traits.deadline_s


def flat_table(rows: list[tuple[Any, ...]], columns: int) -> FloatArray:
    """Rows of `columns` numbers as an array [rows, columns]."""
    count = len(rows) * columns
    return np.fromiter(chain.from_iterable(rows), dtype=np.float64, count=count).reshape(len(rows), columns)


class PoolSeries:
    """Time series of one pool."""

    def __init__(self, width_s: float, fixed: bool) -> None:
        self.busy, self.dyn_w, self.tokens, self.kv_tokens, self.queue, self.running, self.arrivals = (
            Series(width_s, fixed) for _ in range(7)
        )

    def all(self) -> list[Series]:
        """Every one of them."""
        return list(vars(self).values())


class Observer:
    """Records requests and folds clocks.

    Args:
        pools: the fleet's pools.
        slo_classes: the workload's.
        bin_s: width of the timeline's bins, or None to let it grow with the run [s].
        keep_spans: keep every clock row for the spans table.
    """

    def __init__(
        self, pools: list[LivePool], slo_classes: tuple[qoe.SLOClass, ...], bin_s: float | None, keep_spans: bool
    ) -> None:
        self.pools, self.slo_classes = pools, slo_classes
        self.series = [PoolSeries(bin_s or 1.0, bin_s is not None) for _ in pools]
        self.gaps = {(pool.index, c): Gaps() for pool in pools for c in range(len(slo_classes))}
        self.steps = [0] * len(pools)
        self.spans: list[FloatArray] | None = [] if keep_spans else None
        self.closed = 0  # requests that have ended, one way or another
        self.records: list[tuple[Any, ...]] = []
        self._segments: dict[int, Phases] = {}
        self._folded: list[FloatArray] = []
        self._replicas = [(pool, i, engine) for pool in pools for i, engine in enumerate(pool.engines)]
        self._first_replica = np.cumsum([0, *(len(pool.engines) for pool in pools)])
        self._fresh = [0] * len(self._replicas)  # rows of each clock that earlier folds took in
        self._pace = np.array([pool.tokens_a_step for pool in pools])
        self._hands_over = np.array([pool.handover is not None for pool in pools])
        self._detokenizers = {
            at: Detokenizer(pool.spec.engine.detokenize_s, pool.tokens_a_step)
            for at, (pool, _, _) in enumerate(self._replicas)
            if pool.spec.engine.detokenize_s
        }
        self._stalls = Stalls(pools)
        self.hidden = Hidden()
        self.speech = Speech(slo_classes)
        # the clients' clock has a row a step, so it is written for fewer rows at once
        self._fold_rows = FOLD_ROWS // 8 if self._detokenizers else FOLD_ROWS
        self._halted = False
        self._next_check = FOLD_CHECK

    def reject(self, request: Request) -> None:
        """No pool takes this request."""
        known = (request.id, request.arrival_s, REJECTED, request.slo_class, -1, -1, request.prompt, 0)
        self.records.append((*known, *(np.nan,) * 5, 0, -1, 0, 0, *NOWHERE * 4, *whose(request), *NOWHERE))
        self.closed += 1

    def turn_away(self, pool: LivePool, request: Request, status: int, now: float) -> None:
        """A request ends at the door of a pool."""
        known = (request.id, request.arrival_s, status, request.slo_class, pool.index, -1, request.prompt, 0)
        times = (np.nan, -1.0, -1.0, now, np.nan)
        self.records.append((*known, *times, 0, -1, 0, 0, *NOWHERE * 4, *whose(request), *NOWHERE))
        self.closed += 1

    def complete(self, pool: LivePool, replica: int, seq: Sequence) -> None:
        """A request has its last token, or has ended before it."""
        if seq.status and seq.first_s < 0.0:
            seq.row, seq.last_row = 0, -1
        self._record(pool, replica, seq, seq.status, seq.emitted, seq.last_s)
        self.closed += 1
        if self.closed >= self._next_check:
            self._next_check += FOLD_CHECK
            if sum(len(engine.rows) for _, _, engine in self._replicas) > self._fold_rows:
                # at once, but not before all that the step under way ends has been told
                pool.env.schedule(Timer(pool.env, lambda _: self.fold()))

    def _record(self, pool: LivePool, replica: int, seq: Sequence, status: int, emitted: int, last_s: float) -> None:
        request, prefill, decode, waste = seq.request, seq.prefill, seq.decode, seq.waste
        link, traits = pool.link, request.traits
        downlink = 0.0
        if link is not None:
            downlink = link.downlink_s(request)
            if request.leg is None or request.leg.role == "answer":
                link.streamed(emitted)
        if traits.reasoning_tokens and (request.leg is None or request.leg.role == "answer"):
            self.hidden.tokens[request.id] = traits.reasoning_tokens
        if seq.segments is not None:
            self._segments[request.id] = seq.segments
        self.records.append(
            (request.id, request.arrival_s, status, request.slo_class, pool.index, replica, request.prompt, emitted,
             seq.queued_s, seq.scheduled_s, seq.first_s, last_s, downlink, seq.row, seq.last_row, seq.preemptions,
             seq.cached, prefill.real, prefill.imag, seq.prefill_g.real, decode.real, decode.imag, seq.decode_g.real,
             waste.real, waste.imag, seq.waste_g.real, seq.prefill_g.imag, seq.decode_g.imag, seq.waste_g.imag,
             traits.tenant, traits.deadline_s, *(NOWHERE if pool.tariff is None else prices_of(seq)))
        )  # fmt: skip

    def close(self, now: float) -> None:
        """Record what is still in flight at `now`, after the engines have been halted."""
        self._halted = True
        for pool in self.pools:
            for request in pool.uploading.values():
                self.records.append(
                    (request.id, request.arrival_s, IN_FLIGHT, request.slo_class, pool.index, -1, request.prompt, 0,
                     np.nan, -1.0, -1.0, now, np.nan, 0, -1, 0, 0, *NOWHERE * 4, *whose(request), *NOWHERE)
                )  # fmt: skip
        for pool, replica, engine in self._replicas:
            if engine.cuts:
                start, end, dyn_w = np.array(engine.cuts).T
                self.series[pool.index].busy.add_levels(start, end, 1.0)
                self.series[pool.index].dyn_w.add_levels(start, end, dyn_w)
            for seq in chain(engine.running, engine.waiting, pool.handover.on_way[replica] if pool.handover else ()):
                emitted = seq.emitted
                if seq.decoding:
                    engine.settle(seq)
                    emitted += engine.gained(seq, engine.j)
                seq.row, seq.last_row = 0, -1
                seq.segments = None
                self._record(pool, replica, seq, IN_FLIGHT, emitted, now)

    # -- folding ------------------------------------------------------------------------------------------------------

    def fold(self) -> None:
        """Take in what the clocks say since the last fold, and drop the rows that are no longer needed."""
        records = flat_table(self.records, len(FIELDS))
        self.records.clear()
        clocks = ClientClocks(self._ended(records), self._segments, self._detokenizers, len(self._replicas))
        columns = step_clock.FIRST_CLASS + (len(self.slo_classes) if len(self.slo_classes) > 1 else 0)
        fresh: list[list[FloatArray]] = [[] for _ in self.pools]
        seen: list[list[FloatArray]] = [[] for _ in self.pools]
        for at, (pool, replica, engine) in enumerate(self._replicas):
            rows = flat_table(engine.rows, columns)
            new = rows[self._fresh[at] :]
            fresh[pool.index].append(new)
            living = () if self._halted else chain(engine.running, engine.waiting)  # once halted, they are recorded
            seen[pool.index].append(clocks.add(at, engine, rows, len(new), living))
            if self.spans is not None and len(new):
                where = np.tile((float(pool.index), float(replica)), (len(new), 1))
                self.spans.append(np.hstack((where, new[:, : step_clock.FIRST_CLASS])))
            self._drop_rows(at)
            for slo_class, gap, end in engine.preemption_gaps:
                self.gaps[pool.index, slo_class].add_values(np.array([gap]))
                self.series[pool.index].tokens.add_points(np.array([end]))
            engine.preemption_gaps.clear()
        for pool in self.pools:
            self._take_rows(pool.index, np.concatenate(fresh[pool.index]))
            self._take_gaps(pool.index, np.concatenate(seen[pool.index]))
        clocks.join()
        if len(records):
            self._take_records(records, clocks)

    def _ended(self, records: FloatArray) -> Ended:
        number, pool, replica, row, last_row = (
            records[:, COLUMN[name]].astype(np.int64) for name in ("request_id", "pool", "replica", "row", "last_row")
        )
        at = np.where(replica >= 0, self._first_replica[pool] + replica, -1)
        return Ended(number, at, records[:, COLUMN["first_s"]], records[:, COLUMN["last_s"]], row, last_row)

    def _drop_rows(self, at: int) -> None:
        """Drop the rows before the first that a living sequence of replica `at` still needs."""
        engine = self._replicas[at][2]
        first = engine.first_row + len(engine.rows)
        for seq in chain(engine.running, engine.waiting):
            if seq.segments:
                first = min(first, seq.segments[0][0])
            if seq.decoding:
                first = min(first, seq.row)
        first = max(first, engine.first_row)  # in flight at the end, they have no row
        if at in self._detokenizers:
            self._detokenizers[at].drop(first - engine.first_row)
        del engine.rows[: first - engine.first_row]
        engine.first_row = first
        self._fresh[at] = len(engine.rows)

    def _take_rows(self, pool: int, rows: FloatArray) -> None:
        """Let the new rows of a pool enter its series."""
        start, seconds = rows[:, step_clock.START], step_clock.durations(rows)
        end = start + seconds
        steps, decoding = rows[:, step_clock.STEPS], rows[:, step_clock.DECODING]
        series = self.series[pool]
        series.busy.add_levels(start, end, 1.0)
        series.dyn_w.add_levels(start, end, rows[:, step_clock.DYN] / seconds)
        pace = self._pace[pool]
        series.tokens.add_levels(start, end, steps * decoding * pace / seconds)
        mean_context = rows[:, step_clock.CONTEXT] + decoding * (steps - 1.0) * (0.5 * pace)
        held = rows[:, step_clock.HELD] + rows[:, step_clock.PREFILL] * (steps - 1.0) * 0.5
        series.kv_tokens.add_levels(start, end, mean_context + held)
        self.steps[pool] += int(steps.sum())

    def _take_gaps(self, pool: int, rows: FloatArray) -> None:
        """Let the new rows of a pool's clocks, as clients see them, enter its gaps."""
        classes = len(self.slo_classes)
        for c in range(classes):
            column = step_clock.DECODING if classes == 1 else step_clock.FIRST_CLASS + c
            self.gaps[pool, c].add_rows(rows, rows[:, column])

    def _take_records(self, table: FloatArray, clocks: ClientClocks) -> None:
        """Add longest gap and QoE to the records since the last fold, and let them enter the series."""
        rows, first, last, delays = clocks.rows, clocks.first, clocks.last, clocks.delays
        longest = step_clock.longest_gaps(rows, first, last)
        down = table[:, COLUMN["downlink_s"]]
        sent = table[:, COLUMN["arrival_s"]] - down  # so that differences to it are client-side times
        first_s, last_s = table[:, COLUMN["first_s"]] + delays[:, 0], table[:, COLUMN["last_s"]] + delays[:, 1]
        pool = table[:, COLUMN["pool"]].astype(np.int64)
        held, interrupted = self._stalls.of(pool, first_s, last_s, down)
        ttft, e2e = first_s + held[:, 0] - sent, last_s + held[:, 1] - sent
        slo = table[:, COLUMN["slo_class"]].astype(np.int64)
        expected = np.array([each.expected_ttft_s for each in self.slo_classes])[slo]
        speed = np.array([each.digest_tokens_per_s for each in self.slo_classes])[slo]
        tokens = table[:, COLUMN["output_tokens"]]
        done = table[:, COLUMN["status"]] == COMPLETED
        pace = self._pace[pool]  # of no meaning where no pool took it
        hidden = self.hidden.take(table[:, 0], tokens)
        visible_s, shown = ttft, tokens
        if hidden is not None:
            visible_s = token_at(rows, first, last, first_s, hidden, pace) + held[:, 0] - sent
            shown = tokens - hidden
        sentence = self.speech.end_of_sentence(slo, tokens, hidden) if self.speech.spoken else None
        sentence_s = visible_s
        if sentence is not None:
            sentence_s = token_at(rows, first, last, first_s, sentence, pace) + held[:, 0] - sent
        score = qoe.token_qoe_v1(visible_s, e2e, shown, expected, speed)
        score_v2 = qoe.token_qoe_v2(visible_s, shown, expected, speed)
        if (self._pace != 1.0).any():
            self._take_tokens_together(table, step_clock.steps_in(rows, first, last))
        preempted = (table[:, COLUMN["preemptions"]] > 0) | (self._hands_over[pool] & (tokens > 1))
        walked = preempted | interrupted
        stalled = np.flatnonzero(done & ~walked & (longest > 1.0 / speed))
        for start in range(0, len(stalled), WALK_TOGETHER):
            part = stalled[start : start + WALK_TOGETHER]
            times, bounds = step_clock.timelines(rows, first[part], last[part], first_s[part])
            if (pace[part] != 1.0).any():
                times, bounds = step_clock.paced(times, bounds, pace[part], tokens[part].astype(np.int64))
            if hidden is not None:
                times, bounds = seen(times, bounds, hidden[part])
            times -= np.repeat(sent[part], np.diff(bounds))
            score[part], score_v2[part] = qoe.token_qoe_walks(times, bounds, expected[part], speed[part])
        for i in np.flatnonzero(done & walked):
            times = clocks.timeline(int(i), float(pace[i]), int(tokens[i]))
            if interrupted[i]:
                times = self._hold_up(times, int(pool[i]), int(slo[i]), float(down[i]))
            if sentence is not None:
                sentence_s[i] = times[sentence[i]] - sent[i]
            longest[i] = np.diff(times).max() if len(times) > 1 else longest[i]
            if hidden is not None:
                times = times[hidden[i] :]
                visible_s[i] = times[0] - sent[i]
            if longest[i] > 1.0 / speed[i] or (hidden is not None and hidden[i]):
                score[i] = qoe.token_qoe_v1_walk(times - sent[i], expected[i], speed[i])
                score_v2[i] = qoe.token_qoe_v2_walk(times - sent[i], expected[i], speed[i])
        score[~done] = score_v2[~done] = 0.0
        if hidden is not None:
            self.hidden.keep(table[:, 0], hidden, np.where(done, visible_s, np.nan))
        if sentence is not None:
            self.speech.keep(table[:, 0], sentence_s)
        self._take_occupancy(table, pool)
        self._folded.append(np.column_stack((table, longest, score, score_v2, delays + held)))

    def _hold_up(self, times: FloatArray, pool: int, slo_class: int, down_s: float) -> FloatArray:
        """Token times of a request as its link's outages let them through; its gaps change with them."""
        late, changed = self._stalls.stream(pool, times, down_s)
        self.gaps[pool, slo_class].replace_values(np.diff(times)[changed], np.diff(late)[changed])
        return late

    def _take_tokens_together(self, table: FloatArray, in_steps: FloatArray) -> None:
        """Tokens of one step of speculative decoding come together: gaps of 0, of whoever completed undisturbed."""
        done = (table[:, COLUMN["status"]] == COMPLETED) & (table[:, COLUMN["preemptions"]] == 0)
        together = np.maximum(table[:, COLUMN["output_tokens"]] - 1.0 - in_steps, 0.0)
        for (pool, slo_class), gaps in self.gaps.items():
            mine = done & (table[:, COLUMN["pool"]] == pool) & (table[:, COLUMN["slo_class"]] == slo_class)
            if self._pace[pool] != 1.0 and (zeros := int(together[mine].sum())):
                gaps.add_values(np.zeros(1), zeros)

    def _take_occupancy(self, table: FloatArray, pools: IntArray) -> None:
        for pool, series in enumerate(self.series):
            mine = table[pools == pool]
            queued, scheduled, first, last = (
                mine[:, COLUMN[name]] for name in ("queued_s", "scheduled_s", "first_s", "last_s")
            )
            series.arrivals.add_points(mine[:, COLUMN["arrival_s"]])
            started, there = scheduled >= 0.0, ~np.isnan(queued)
            series.queue.add_levels(queued[there], np.where(started, scheduled, last)[there], 1.0)
            series.running.add_levels(scheduled[started], last[started], 1.0)
            series.tokens.add_points(first[first >= 0.0])

    def table(self) -> dict[str, FloatArray]:
        """All records as columns, in order of arrival."""
        table = np.empty((sum(map(len, self._folded)), len(FIELDS) + len(DERIVED)))
        while self._folded:  # part by part, for the whole may be large; ids run from 0 without a gap
            part = self._folded.pop()
            table[part[:, 0].astype(np.int64)] = part
        return {name: table[:, i] for i, name in enumerate((*FIELDS, *DERIVED))}

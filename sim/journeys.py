"""All journeys of a run: their legs are numbered and recorded by the observer as requests of their own; here they
become one row a request again.

Which leg a column is of: identity and length are the client's; times run from the client's first byte to what it was
shown, so that `uplink_s` holds everything before the answering leg was queued; work, energy, carbon and cost are sums.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sim import qoe
from sim.answer import Answer, read_parts
from sim.errors import InputError
from sim.fleet.leg import COMPLETED, FAILED, REJECTED, Leg
from sim.fleet.link import CLIENT
from sim.journey import ENDINGS, Journey, Outcome
from sim.request import Request, Traits
from sim.results import LEG_COLUMNS, REQUEST_COLUMNS, STATUSES, Columns, PoolTotals
from sim.tables import typed

if TYPE_CHECKING:
    from sim.fleet.pool import LivePool
    from sim.live import LiveRun

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

IN_FLIGHT = STATUSES.index("in_flight")
STREAM, SHOWN, PARTS = range(3)  #: how an answer comes: a leg as it streams, all at once, or streams of several legs

#: what is kept of a journey, in order; times are the client's, since the start of the run
FIELDS = (
    "request_id", "arrival_s", "status", "slo_class", "prompt_tokens", "output_tokens", "answer", "kind", "first_s",
    "last_s", "itl_max_s", "token_qoe", "token_qoe_v2", "legs", "escalations", "network_j", "quality",
    "context_tokens", "retrieval_s", "sentence_s", "deadline_s", "rejected",
)  # fmt: skip
#: columns of a leg that a request sums over its legs
SUMS = (
    "preemptions", "xpu_s", "energy_j", "energy_prefill_j", "energy_wasted_j", "energy_network_j",
    "energy_provisioned_j", "carbon_operational_g", "carbon_operational_provisioned_g", "carbon_embodied_g",
    "carbon_embodied_provisioned_g", "cost_usd", "cost_prefill_usd", "cost_provisioned_usd",
)  # fmt: skip


class Journeys:
    """The journeys of one run.

    Args:
        run: the run; a journey looks up there what its policy sees.
        policy: has `handle(request, fleet)`, a generator; see `sim.routing.base.Policy`.

    Attributes:
        closed: journeys that have ended.
    """

    def __init__(self, run: LiveRun, policy: Any) -> None:
        self.run, self._policy = run, policy
        self.closed = 0
        self._open: dict[int, Journey] = {}
        self._records = array("d")  # rows of `FIELDS`, one after the other
        self._parents = array("q")  # of each leg, by its number
        self._useful = array("d")
        self._up_bytes, self._down_bytes = array("d"), array("d")  # sent over the client link of each leg's pool
        self._roles = {"answer": 0}
        self._role_codes = bytearray()

    def begin(self, request: Request) -> None:
        """A request arrives."""
        journey = self._open[request.id] = Journey(self, request)
        journey.start(self._policy)

    def serve(
        self,
        journey: Journey,
        pool: LivePool,
        prompt: int | None,
        output: int | None,
        cached: int,
        role: str,
        source: str,
        nbytes: float | None,
        keep: bool,
        replica: int | None,
        hashes: Sequence[int] | None = None,
        traits: Traits | None = None,
    ) -> Leg:
        """Begin a leg; see `Journey.serve`."""
        client = journey.request
        prompt = client.prompt if prompt is None else prompt
        output = client.output if output is None else output
        if prompt < 1 or output < 1 or not 0 <= cached < prompt:
            value = f"{prompt} prompt, {output} output, {cached} cached"
            raise InputError("policy tokens", value, "at least 1, 1, and from 0 to fewer than the prompt's")
        if keep and pool.spec.engine.detokenize_s:
            raise InputError(f"pools.{pool.name}.engine.detokenize_s", "> 0", "0 with a policy that joins answers")
        cached = max(cached, min(client.cached, prompt - 1))
        hashes = client.hashes if hashes is None else hashes
        traits = client.traits if traits is None else traits
        number = len(self._parents)
        request = Request(number, client.arrival_s, prompt, output, client.slo_class, cached, hashes, traits)
        leg = request.leg = Leg(client, pool, request, role, keep)
        self._number(journey, leg)
        status = self._refusal(journey, pool, prompt + output)
        if status is not None:
            self.run.observer.turn_away(pool, request, status, self.run.now)
            leg.end(status)
            return leg
        if source != CLIENT and not self.run.network.joined(source, pool.site_name):
            source = CLIENT
        size = self._text_bytes(pool, prompt) if nbytes is None else nbytes
        if source == CLIENT:
            self._up_bytes[number] = size
        else:
            energy = self.run.network.energy_j(source, pool.site_name, size)
            journey.network_j += np.nan if energy is None else energy
        pool.dispatch(leg, source, self.run.network, size, replica)
        return leg

    def relayed(self, by: Leg, count: int) -> None:
        """The pool of a leg sends `count` tokens on to the client."""
        link = by.pool.link
        if link is not None:
            link.streamed(count)
            self._down_bytes[by.request.id] += count * link.spec.chunk_bytes

    def _number(self, journey: Journey, leg: Leg) -> None:
        journey.legs.append(leg)
        self._parents.append(journey.request.id)
        self._useful.append(0.0)
        self._up_bytes.append(0.0)
        self._down_bytes.append(0.0)
        code = self._roles.get(leg.role)
        if code is None:
            code = self._roles[leg.role] = len(self._roles)
        self._role_codes.append(code)

    def _refusal(self, journey: Journey, pool: LivePool, tokens: int) -> int | None:
        """Why a pool does not take a leg, if it does not."""
        if tokens > pool.max_tokens:
            self.run.check_size(journey.request)
            return REJECTED
        return None if pool.up else FAILED

    @staticmethod
    def _text_bytes(pool: LivePool, tokens: int) -> float:
        return tokens * (pool.link.spec.prompt_bytes_per_token if pool.link is not None else 4.0)

    # -- the end of a journey -----------------------------------------------------------------------------------------

    def close(self, journey: Journey, outcome: Outcome) -> None:
        """A policy has returned."""
        answer = Answer((journey.stream(outcome),)) if isinstance(outcome, Leg) else outcome
        if isinstance(answer, Answer) and not answer.parts:
            raise InputError("policy answer", "no part", "at least one leg's tokens")
        status = self._status(journey, outcome)
        del self._open[journey.request.id]
        self.closed += 1
        if status == COMPLETED and isinstance(answer, Answer):
            self._complete(journey, answer)
        else:
            if status == REJECTED:
                self.run.check_size(journey.request)
            last = journey.legs[-1] if journey.legs else None
            self._unanswered(journey, status, last)

    def _status(self, journey: Journey, outcome: Outcome) -> int:
        if isinstance(outcome, Leg):
            return outcome.status if outcome.done else STATUSES.index("cancelled")
        if isinstance(outcome, Answer):
            return COMPLETED
        if outcome is None:
            failed = any(leg.status == FAILED for leg in journey.legs)
            return FAILED if failed else REJECTED
        if outcome not in ENDINGS:
            raise InputError("policy answer", outcome, "a leg, an answer, or one of " + " | ".join(ENDINGS))
        return STATUSES.index(outcome)

    def _complete(self, journey: Journey, answer: Answer) -> None:
        parts, useful = answer.parts, self._useful
        legs = {part.leg for part in parts}
        for leg in journey.legs:
            if leg in legs or (leg.role != "answer" and leg.status == COMPLETED):
                useful[leg.request.id] = leg.useful
        first, last = parts[0].leg, parts[-1].leg
        tokens = parts[0].count if len(parts) == 1 else answer.tokens
        kind, first_s, last_s, longest, score, score_v2, sentence_s = STREAM, *(np.nan,) * 6
        if answer.shown_s is not None:
            kind, first_s, last_s, longest = SHOWN, answer.shown_s, answer.shown_s, 0.0
            sentence_s = answer.shown_s
        elif answer.joined:
            kind, slo = PARTS, self.run.observer.slo_classes[journey.request.slo_class]
            read = read_parts(answer, journey.request.arrival_s, slo)
            first_s, last_s, longest, score, score_v2, sentence_s = read
        author = answer.quality_of or last
        quality = answer.quality
        if quality is None:
            quality = self.run.quality.correct(journey.request, author.pool.name)
        number = (first if kind == PARTS else last).request.id
        record = kind, first_s, last_s, longest, score, score_v2, quality, sentence_s
        self._record(journey, COMPLETED, tokens, number, *record)

    def _unanswered(self, journey: Journey, status: int, last: Leg | None) -> None:
        number = -1 if last is None else last.request.id
        nan = np.nan
        self._record(journey, status, 0, number, STREAM, nan, nan, nan, 0.0, 0.0, nan, nan)

    def _record(self, journey: Journey, status: int, tokens: int, number: int, *rest: float) -> None:
        request = journey.request
        kind, first_s, last_s, longest, score, score_v2, quality, sentence_s = rest
        self._records.extend(
            (request.id, request.arrival_s, status, request.slo_class, request.prompt, tokens, number, kind, first_s,
             last_s, longest, score, score_v2, len(journey.legs), journey.escalations, journey.network_j, quality,
             journey.context_tokens, journey.retrieval_s, sentence_s, request.traits.deadline_s,
             sum([leg.rejected for leg in journey.legs]))
        )  # fmt: skip

        if self.run.feed is not None:
            self.run.feed.journeyed(journey, int(status), int(number), first_s, last_s)

    def close_open(self) -> None:
        """The run is over: who has no answer yet is in flight."""
        for journey in self._open.values():
            journey.open = False
            self._unanswered(journey, IN_FLIGHT, journey.legs[-1] if journey.legs else None)
        self._open.clear()

    # -- tables -------------------------------------------------------------------------------------------------------

    def useful(self) -> FloatArray:
        """Share of each leg's work that went into an answer, by its number."""
        return np.array(self._useful, dtype=np.float64)

    def traffic(self, pools: Sequence[LivePool], legs: Columns) -> tuple[FloatArray, FloatArray]:
        """What each leg had the client link of its pool carry, up and down [bytes]; only answers stream."""
        chunks = [0.0 if pool.link is None else pool.link.spec.chunk_bytes for pool in pools]
        streamed = np.array([*chunks, 0.0])[legs["pool"].astype(np.int64)] * legs["output_tokens"]
        answers = np.frombuffer(self._role_codes, dtype=np.uint8) == 0
        return np.array(self._up_bytes), np.array(self._down_bytes) + np.where(answers, streamed, 0.0)

    @staticmethod
    def count_traffic(totals: Sequence[PoolTotals], pool: npt.NDArray[Any], up: FloatArray, down: FloatArray) -> None:
        """Give pools the client traffic that there was: not every leg comes from clients or streams to them.

        Args:
            totals: of the pools.
            pool: of each leg.
            up, down: bytes of each leg, see `traffic`.
        """
        for number, each in enumerate(totals):
            mine = pool == number
            each.bytes_up, each.bytes_down = float(up[mine].sum()), float(down[mine].sum())

    def leg_table(self, legs: Columns) -> Columns:
        """The legs, with whose they are and what for."""
        roles = np.array(list(self._roles), dtype=object)[np.frombuffer(self._role_codes, dtype=np.uint8)]
        parents = np.array(self._parents, dtype=np.int64)
        more = {"leg_id": legs["request_id"], "request_id": parents, "role": roles, "useful": self.useful()}
        return typed(legs | more, LEG_COLUMNS, copy=False)

    def request_table(self, legs: Columns, warmup_s: float, horizon_s: float) -> Columns:
        """One row a request, in order of arrival, from the accounts of its legs."""
        rows = np.frombuffer(self._records, dtype=np.float64).reshape(-1, len(FIELDS))
        order = np.argsort(rows[:, 0], kind="stable")
        own = {name: rows[order, i] for i, name in enumerate(FIELDS)}
        count = len(rows)
        answer = own["answer"].astype(np.int64)
        columns = _of_legs(legs, answer, count)
        for name in ("request_id", "arrival_s", "status", "slo_class", "prompt_tokens", "output_tokens", "quality"):
            columns[name] = own[name]
        parents = np.array(self._parents, dtype=np.int64)
        for name in SUMS:
            columns[name] = np.bincount(parents, legs[name].astype(np.float64), minlength=count)
        made = np.bincount(parents, legs["output_tokens"].astype(np.float64), minlength=count)
        unseen = np.maximum(made - self._overhead(legs, parents, count) - own["output_tokens"], 0.0)
        columns["tokens_wasted"] = unseen + own["rejected"]
        columns["energy_network_j"] = columns["energy_network_j"] + np.nan_to_num(own["network_j"])
        for name in ("legs", "escalations", "context_tokens", "retrieval_s"):
            columns[name] = own[name]
        columns["counted"] = (own["arrival_s"] >= warmup_s) & (own["arrival_s"] < horizon_s)
        self._times(columns, own)
        return typed(columns, REQUEST_COLUMNS)

    def _overhead(self, legs: Columns, parents: IntArray, count: int) -> FloatArray:
        """Output tokens of legs that are no answer but did their work, such as a verdict."""
        codes = np.frombuffer(self._role_codes, dtype=np.uint8)
        worked = (self.useful() > 0.0) & (codes != 0)
        tokens = legs["output_tokens"][worked].astype(np.float64)
        return np.bincount(parents[worked], tokens, minlength=count).astype(np.float64)

    def _times(self, columns: Columns, own: dict[str, FloatArray]) -> None:
        """Times and QoE of answers that are not one leg's stream, and none of requests that did not complete."""
        done, kind = own["status"] == COMPLETED, own["kind"]
        other = done & (kind != STREAM)
        arrival, tokens = own["arrival_s"], own["output_tokens"]
        ttft, e2e = own["first_s"] - arrival, own["last_s"] - arrival
        tpot = np.full_like(e2e, np.nan)
        np.divide(e2e - ttft, tokens - 1.0, out=tpot, where=tokens > 1)
        shown, parts = done & (kind == SHOWN), done & (kind == PARTS)
        before = columns["uplink_s"] + columns["queue_s"] + columns["prefill_s"]
        columns["decode_s"] = np.where(parts, e2e - ttft, columns["decode_s"])
        columns["downlink_s"] = np.where(shown, e2e - before - columns["decode_s"], columns["downlink_s"])
        columns["downlink_s"] = np.where(parts, ttft - before, columns["downlink_s"])
        for name, values in (("ttft_s", ttft), ("e2e_s", e2e), ("tpot_s", tpot), ("itl_max_s", own["itl_max_s"])):
            columns[name] = np.where(other, values, columns[name])
        # an answer in parts does not tell where its hidden tokens ended
        behind = np.where(parts & (columns["reasoning_tokens"] > 0), np.nan, ttft)
        columns["ttfv_s"] = np.where(done, np.where(other, behind, columns["ttfv_s"]), np.nan)
        columns["itl_max_s"] = np.where(shown & (tokens <= 1), np.nan, columns["itl_max_s"])
        classes, slo = self.run.observer.slo_classes, own["slo_class"].astype(np.int64)
        expected = np.array([each.expected_ttft_s for each in classes])[slo]
        speed = np.array([each.digest_tokens_per_s for each in classes])[slo]
        at_once = qoe.token_qoe_v1(ttft, e2e, tokens, expected, speed)
        at_once_v2 = qoe.token_qoe_v2(ttft, tokens, expected, speed)
        for name, values in (("token_qoe", at_once), ("token_qoe_v2", at_once_v2)):
            columns[name] = np.where(shown, values, np.where(parts, own[name], columns[name]))
            columns[name] = np.where(done, columns[name], 0.0)
        for name in ("ttft_s", "tpot_s", "e2e_s", "uplink_s", "queue_s", "prefill_s", "decode_s", "downlink_s",
                     "itl_max_s", "retrieval_s"):  # fmt: skip
            columns[name] = np.where(done, columns[name], np.nan)
        heard = self.run.observer.speech.sounds(own["sentence_s"] - arrival, slo)
        heard = np.where(parts & (columns["reasoning_tokens"] > 0), np.nan, heard)
        heard = np.where(other, heard, columns["first_audio_s"])
        columns["first_audio_s"] = np.where(done, heard, np.nan)
        columns["deadline_s"] = np.where(np.isinf(own["deadline_s"]), np.nan, own["deadline_s"])
        columns["slo_met"] = done & qoe.all_met(columns, classes)


def _of_legs(legs: Columns, answer: IntArray, count: int) -> Columns:
    """The columns of the leg that stands for each request; what a request without any has, is unknown or none."""
    columns: Columns = {}
    there = answer >= 0
    for name, values in legs.items():
        kind = values.dtype.kind
        missing: Any = np.nan if kind == "f" else (-1 if name in ("pool", "replica") else 0)
        column = np.full(count, missing, dtype=values.dtype)
        column[there] = values[answer[there]]
        columns[name] = column
    return columns

"""A request inside an engine: its progress, its stamps on the step clock and its shares."""

from __future__ import annotations

from collections.abc import Callable

from sim.request import Request

#: An engine's three running share totals at one moment; see `sim.serving.decode_set`.
Marks = tuple[complex, complex, complex]
NO_MARKS: Marks = (0j, 0j, 0j)


class Sequence:
    """One attempt to serve a request on one replica.

    Attributes:
        request: what is served.
        target: output tokens to emit; emitted: those emitted when its present (or last) decode phase began.
        length: tokens to prefill (the prompt, and after a preemption what was already generated); done: those computed.
        offset: while it decodes, the step with counter j reads a context of `offset + j` tokens.
        decoding: True while it is in the decode set.
        on_done: called once, when the last token is out, or when it is cancelled or fails.
        on_first: called when the first token is out; None for nobody.
        status: how it ended: an index into `sim.results.STATUSES`.
        queued_s, scheduled_s, first_s, last_s: reached the queue, first scheduled, first token, last token [s].
        row, last_row: rows of the step clock in which it decoded; of the last decode phase if there were several.
        segments: (first row, last row, gap to the next token [s]) of the decode phases that a preemption ended.
        units: shared prefix units it holds; cached: prompt tokens that its first admission found computed.
        preemptions: how often it lost its KV cache; swapped: blocks of it that the host keeps meanwhile.
        marks: the engine's share totals when it was last settled.
        prefill, decode, waste: its shares of active time and dynamic energy, as seconds + 1j * joules: of its (last)
            prefill, of its decode steps, and of prefills that a preemption threw away.
        prefill_g, decode_g, waste_g: their carbon before PUE, kept only where intensity varies [J * g/kWh].
    """

    __slots__ = (
        "cached",
        "decode",
        "decode_g",
        "decoding",
        "done",
        "emitted",
        "first_s",
        "last_row",
        "last_s",
        "length",
        "marks",
        "offset",
        "on_done",
        "on_first",
        "preemptions",
        "prefill",
        "prefill_g",
        "queued_s",
        "request",
        "row",
        "scheduled_s",
        "segments",
        "status",
        "swapped",
        "target",
        "units",
        "waste",
        "waste_g",
    )

    def __init__(self, request: Request, queued_s: float, on_done: Callable[[Sequence], None]) -> None:
        self.request = request
        self.length = request.prompt
        self.target = request.output
        self.queued_s = queued_s
        self.on_done = on_done
        self.on_first: Callable[[Sequence], None] | None = None
        self.scheduled_s = self.first_s = self.last_s = -1.0
        self.emitted = self.offset = self.row = self.preemptions = self.swapped = self.status = 0
        self.done = self.cached = request.cached
        self.units: list[int] = []
        self.last_row = -1
        self.decoding = False
        self.segments: list[tuple[int, int, float]] | None = None
        self.marks = NO_MARKS
        self.prefill = self.decode = self.waste = 0j
        self.prefill_g = self.decode_g = self.waste_g = 0.0

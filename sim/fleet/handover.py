"""Disaggregation: some replicas of a pool compute prompts, the others decode, and KV caches move between them.

A prompt's blocks stay on the prefill replica until their copy is through, and room for them is set aside on the decode
replica before it begins. So a full decode side holds transfers up, pinned blocks fill the prefill side, and that admits
fewer prompts: back-pressure, without a rule of its own. Source: DistServe (arXiv 2401.09670), section 4.3: decode
replicas pull, prefill memory is the buffer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from simpy import Environment
from simpy.events import NORMAL

from sim.hardware.collectives import Interconnect, send_s
from sim.serving.engine import CANCELLED, FAILED, Engine
from sim.serving.sequence import Sequence
from sim.serving.timer import Timer

_LATE: Any = NORMAL + 1  #: priority of events that come after all others of their time


class Handover:
    """The way from the prefill to the decode replicas of one pool.

    Args:
        env: the SimPy environment.
        engines: of all replicas; the first `prefill` compute prompts.
        prefill: how many do.
        link: what a replica's copies run over, one after the other.
        bytes_per_token: KV cache of a token [bytes].
        finished: called with replica and sequence when a request has its last token.
    """

    def __init__(
        self,
        env: Environment,
        engines: list[Engine],
        prefill: int,
        link: Interconnect,
        bytes_per_token: float,
        finished: Callable[[int, Sequence], None],
    ) -> None:
        self._env, self._engines, self._prefill, self._link = env, engines, prefill, link
        self._bytes_per_token, self._finished = bytes_per_token, finished
        self._loads = [0] * len(engines)  # prompt tokens to compute, or sequences to decode
        self._ready: list[deque[tuple[int, Sequence]]] = [deque() for _ in engines]  # computed, by decode replica
        self._free_s = [0.0] * len(engines)  # when the copies that a prefill replica has begun are through
        self.on_way: list[dict[Sequence, None]] = [{} for _ in engines]  # computed, not yet handed over, by origin
        self.doomed: set[Sequence] = set()  # to be cancelled when their copy is through
        self._generation = 0  # of copies: a failure ends those before it

    def admit(self, prompt: int) -> int:
        """Name the prefill replica of a prompt: that with the fewest tokens to compute."""
        replica = min(range(self._prefill), key=self._loads.__getitem__)
        self._loads[replica] += prompt
        return replica

    def computed(self, origin: int, seq: Sequence) -> None:
        """A prompt is computed, and its first token out; called while the engine is at a boundary."""
        request = seq.request
        self._loads[origin] -= request.prompt
        if request.output == 1 or seq.status:
            self._finished(origin, seq)
            return
        self._engines[origin].pin(self._blocks(request.prompt), self._env.now)
        self.on_way[origin][seq] = None
        target = min(range(self._prefill, len(self._engines)), key=self._loads.__getitem__)
        self._loads[target] += 1
        self._ready[target].append((origin, seq))
        self._begin_soon(target)

    def decoded(self, replica: int, seq: Sequence) -> None:
        """A sequence has its last token, and its decode replica more room."""
        self._loads[replica] -= 1
        self._finished(replica, seq)
        if self._ready[replica]:
            self._begin_soon(replica)

    def _begin_soon(self, target: int) -> None:
        """`_begin` once all engines that are at a boundary now have planned: what they take is known only then."""
        self._env.schedule(Timer(self._env, lambda _: self._begin(target)), _LATE)

    def _begin(self, target: int) -> None:
        """Begin copies to a decode replica, in order, as long as they fit there."""
        ready, engine, now = self._ready[target], self._engines[target], self._env.now
        while ready:
            origin, seq = ready[0]
            need = self._blocks(seq.request.prompt + 1)
            if need > engine.free_blocks():
                return
            ready.popleft()
            engine.pin(need, now)
            nbytes = seq.request.prompt * self._bytes_per_token
            end = self._free_s[origin] = max(now, self._free_s[origin]) + send_s(nbytes, self._link)
            self._later(partial(self._arrive, origin, target, seq, self._generation), end - now)

    def fail(self) -> None:
        """All replicas fail: what was on its way between them is lost. Their engines are told by the pool."""
        self._generation += 1
        lost = [(origin, seq) for origin, ways in enumerate(self.on_way) for seq in ways]
        for engine in self._engines:
            engine.pin(-engine.pinned, self._env.now)
        for ready in self._ready:
            ready.clear()
        self._free_s = [0.0] * len(self._engines)
        self.doomed.clear()
        for origin, seq in lost:
            del self.on_way[origin][seq]
            self._end(origin, seq, FAILED)
        decode = range(self._prefill, len(self._engines))
        for replica in decode:
            self._loads[replica] = len(self._engines[replica].running) + len(self._engines[replica].waiting)

    def _end(self, replica: int, seq: Sequence, status: int) -> None:
        """A sequence ends between two replicas, with its first token out."""
        seq.status, seq.last_s = status, self._env.now
        self._finished(replica, seq)

    def _arrive(self, origin: int, target: int, seq: Sequence, generation: int) -> None:
        """A copy is through: the sequence queues at its decode replica, with all but its last token computed."""
        if generation != self._generation:
            return
        now, request, engine = self._env.now, seq.request, self._engines[target]
        del self.on_way[origin][seq]
        self._engines[origin].let_go(seq, self._blocks(request.prompt), now)
        engine.pin(-self._blocks(request.prompt + 1), now)
        if seq in self.doomed:
            self.doomed.discard(seq)
            self._loads[target] -= 1
            self._end(origin, seq, CANCELLED)
            self._begin(target)
            return
        row = engine.first_row + len(engine.rows)
        seq.segments = [(row, row - 1, 0.0)]  # an empty decode phase, and the gap that the copy makes after it
        seq.target, seq.length, seq.done = request.output, request.prompt + 1, request.prompt
        seq.on_done = lambda done: self.decoded(target, done)
        engine.submit(seq, now)
        self._begin_soon(target)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._engines[0].block_size)

    def _later(self, call: Callable[[], None], delay: float) -> None:
        self._env.schedule(Timer(self._env, lambda _: call()), delay=delay)

"""The way in: the API servers of a pool parse and tokenize requests before their engines see them.

Each replica has one, of one process or several. A request waits for the first free process, first come first served.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapreplace
from typing import Any

from simpy import Environment
from simpy.events import Event, Timeout

from sim.fleet.engine_settings import EngineSettings
from sim.request import Request


class FrontEnd:
    """The API servers of one pool.

    A replica's processes are a heap of the times at which they become free: the Kiefer-Wolfowitz recursion of a queue
    with several servers. So a request's way through is known when it comes, and costs one event.

    Args:
        env: the SimPy environment.
        engine: settings with `front_end_s`, `tokenize_s`, `tokenize_s_per_token` and `front_end_workers`.
        replicas: of the pool.
        deliver: called with a request and its replica once the request is parsed.

    Source: Kiefer and Wolfowitz, On the theory of queues with many servers, Trans. Amer. Math. Soc. 78 (1955).
    """

    __slots__ = ("_backlog_s", "_deliver", "_env", "_free", "_latency_s", "_seen_s", "_service_s", "_token_s", "_width")

    def __init__(
        self, env: Environment, engine: EngineSettings, replicas: int, deliver: Callable[[Request, int], None]
    ) -> None:
        self._env, self._deliver = env, deliver
        self._latency_s = engine.front_end_s
        self._service_s, self._token_s = engine.tokenize_s, engine.tokenize_s_per_token
        self._free = [[0.0] * engine.front_end_workers for _ in range(replicas)]  # heaps, one a replica
        self._width = replicas * engine.front_end_workers
        self._backlog_s = self._seen_s = 0.0  # work left in all processes, and when that was

    def enter(self, request: Request, replica: int) -> None:
        """Take a request for a replica in, now."""
        now = self._env.now
        delay = self._latency_s
        service = self._service_s + self._token_s * request.prompt
        if service:
            free = self._free[replica]
            end = (free[0] if free[0] > now else now) + service
            heapreplace(free, end)
            delay += end - now
            self._backlog_s = self._left_s() + service
            self._seen_s = now
        parsed = Timeout(self._env, delay, (request, replica))
        parsed.callbacks.append(self._parsed)

    def _parsed(self, event: Event) -> None:
        arrived: Any = event.value
        request, replica = arrived
        self._deliver(request, replica)

    def _left_s(self) -> float:
        return max(0.0, self._backlog_s - (self._env.now - self._seen_s) * self._width)

    def predicted_s(self, prompt: int) -> float:
        """How long a prompt that came now would take [s], as if one queue fed all processes of the pool."""
        return self._left_s() / self._width + self._service_s + self._token_s * prompt + self._latency_s

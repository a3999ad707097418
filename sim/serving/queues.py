"""Who is served next: the orders in which a replica admits requests, and whom it preempts when memory runs out.

An engine's queue is one of these classes. `first` names who is to be admitted next among those that the coming step may
know of; it stays first until it is taken, unless somebody better arrives (`leads`) or the order is `dynamic`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any, Protocol

from sim.serving.sequence import Sequence

TOLERANCE_S = 1e-9  #: an arrival this close to a step boundary joins the step that starts there [s]

Running = dict[Sequence, None]  #: admitted sequences in order of admission


class Queue(Protocol):
    """The sequences that wait at one replica.

    Attributes:
        dynamic: True if who is first may change from one step to the next with nobody arriving.
    """

    dynamic: bool

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence]: ...

    def push(self, seq: Sequence) -> None:
        """A sequence arrives."""

    def leads(self, seq: Sequence) -> bool:
        """Whether nobody is before `seq`, which has just been pushed."""

    def first(self, visible_s: float) -> Sequence | None:
        """Who is next among those that arrived by `visible_s`."""

    def unseen(self, visible_s: float) -> bool:
        """Whether somebody who arrived after `visible_s` may be first at the next step. Asked only if anybody waits."""

    def take(self) -> None:
        """Remove the one that `first` named: it is admitted."""

    def put_back(self, seq: Sequence) -> None:
        """A preempted sequence returns."""

    def victim(self, running: Running) -> Sequence:
        """Whom to preempt."""

    def remove(self, seq: Sequence) -> None:
        """A waiting sequence is cancelled."""


class Fcfs(deque[Sequence]):
    """First come first served; the last admitted is preempted, and returns to the head."""

    __slots__ = ()
    dynamic = False

    def push(self, seq: Sequence) -> None:
        """See `Queue.push`."""
        self.append(seq)

    def leads(self, seq: Sequence) -> bool:
        """See `Queue.leads`."""
        return self[0] is seq

    def first(self, visible_s: float) -> Sequence | None:
        """See `Queue.first`."""
        seq = self[0]
        return None if seq.queued_s > visible_s + TOLERANCE_S else seq

    def unseen(self, visible_s: float) -> bool:
        """See `Queue.unseen`."""
        return self[0].queued_s > visible_s

    def take(self) -> None:
        """See `Queue.take`."""
        self.popleft()

    def put_back(self, seq: Sequence) -> None:
        """See `Queue.put_back`."""
        self.appendleft(seq)

    def victim(self, running: Running) -> Sequence:
        """See `Queue.victim`."""
        return next(reversed(running))


class Ordered:
    """By a key that never changes, the smallest first, then by arrival; the one with the largest is preempted.

    Args:
        key: what to order by, of a sequence.
    """

    dynamic = False

    def __init__(self, key: Callable[[Sequence], float]) -> None:
        self._key = key
        self._heap: list[tuple[Any, ...]] = []
        self._inbox: deque[Sequence] = deque()  # arrived, and perhaps not seen yet

    def __len__(self) -> int:
        return len(self._heap) + len(self._inbox)

    def __iter__(self) -> Iterator[Sequence]:
        yield from (entry[-1] for entry in self._heap)
        yield from self._inbox

    def _entry(self, seq: Sequence) -> tuple[Any, ...]:
        return self._key(seq), seq.queued_s, seq.request.id, seq

    def push(self, seq: Sequence) -> None:
        """See `Queue.push`."""
        self._inbox.append(seq)

    def leads(self, seq: Sequence) -> bool:
        """See `Queue.leads`."""
        own = self._entry(seq)
        if self._heap and self._heap[0] < own:
            return False
        return all(own <= self._entry(other) for other in self._inbox)

    def first(self, visible_s: float) -> Sequence | None:
        """See `Queue.first`."""
        inbox = self._inbox
        while inbox and inbox[0].queued_s <= visible_s + TOLERANCE_S:
            heappush(self._heap, self._entry(inbox.popleft()))
        return self._heap[0][-1] if self._heap else None

    def unseen(self, visible_s: float) -> bool:
        """See `Queue.unseen`."""
        return bool(self._inbox)

    def take(self) -> None:
        """See `Queue.take`."""
        heappop(self._heap)

    def put_back(self, seq: Sequence) -> None:
        """See `Queue.put_back`."""
        heappush(self._heap, self._entry(seq))

    def victim(self, running: Running) -> Sequence:
        """See `Queue.victim`."""
        return max(running, key=lambda seq: self._entry(seq)[:-1])

    def remove(self, seq: Sequence) -> None:
        """See `Queue.remove`."""
        if seq in self._inbox:
            self._inbox.remove(seq)
        else:
            self._heap = [entry for entry in self._heap if entry[-1] is not seq]
            heapify(self._heap)


class FairShare:
    """Virtual token counter: who has had the least service is next, first come first served within a tenant.

    A tenant's counter grows by 1 for each prompt token when a request is first admitted and by 2 for each output token;
    a tenant that comes back is lifted to the least counter of those that wait, when the scheduler next looks at the
    queue. Preempted are the last admitted.

    Source: Sheng et al., Fairness in Serving Large Language Models, OSDI 2024 (arXiv 2401.00588), algorithm 2.
    """

    dynamic = True
    PROMPT, OUTPUT = 1.0, 2.0  #: weights of a prompt token and an output token, as there

    def __init__(self) -> None:
        self.served: dict[int, float] = {}
        self._queues: dict[int, deque[Sequence]] = {}  # only tenants with somebody waiting
        self._last = -1  # the tenant whose queue was the last to run empty
        self._inbox: list[Sequence] = []
        self._count = 0
        self._tenant = 0  # of `first`

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sequence]:
        for queue in self._queues.values():
            yield from queue
        yield from self._inbox

    def _queue(self, seq: Sequence) -> deque[Sequence]:
        """The queue of a sequence's tenant, whose counter is lifted if nobody of it was waiting."""
        tenant = seq.request.traits.tenant
        queue = self._queues.get(tenant)
        if queue is None:
            least = min((self.served[each] for each in self._queues), default=self.served.get(self._last, 0.0))
            self.served[tenant] = max(self.served.get(tenant, 0.0), least)
            queue = self._queues[tenant] = deque()
        return queue

    def push(self, seq: Sequence) -> None:
        """See `Queue.push`."""
        self._inbox.append(seq)
        self._count += 1

    def leads(self, seq: Sequence) -> bool:
        """See `Queue.leads`. With others waiting, spans are single steps while there is a seat."""
        return self._count == 1

    def first(self, visible_s: float) -> Sequence | None:
        """See `Queue.first`."""
        for seq in self._inbox:
            self._queue(seq).append(seq)
        self._inbox = []
        best, tenant = math.inf, -1
        for each, queue in self._queues.items():
            served = self.served[each]
            if (served, each) < (best, tenant) and queue[0].queued_s <= visible_s + TOLERANCE_S:
                best, tenant = served, each
        self._tenant = tenant
        return self._queues[tenant][0] if tenant >= 0 else None

    def unseen(self, visible_s: float) -> bool:
        """See `Queue.unseen`."""
        return True

    def take(self) -> None:
        """See `Queue.take`."""
        queue = self._queues[self._tenant]
        seq = queue.popleft()
        self._count -= 1
        if seq.scheduled_s < 0.0:
            self.served[self._tenant] += self.PROMPT * seq.request.prompt
        if not queue:
            self._last = self._tenant
            del self._queues[self._tenant]

    def put_back(self, seq: Sequence) -> None:
        """See `Queue.put_back`."""
        self._queue(seq).appendleft(seq)
        self._count += 1

    def victim(self, running: Running) -> Sequence:
        """See `Queue.victim`."""
        return next(reversed(running))

    def remove(self, seq: Sequence) -> None:
        """See `Queue.remove`."""
        self._count -= 1
        if seq in self._inbox:
            self._inbox.remove(seq)
            return
        tenant = seq.request.traits.tenant
        queue = self._queues[tenant]
        queue.remove(seq)
        if not queue:
            del self._queues[tenant]

    def emitted(self, seq: Sequence, tokens: int) -> None:
        """Count output tokens of a sequence."""
        tenant = seq.request.traits.tenant
        self.served[tenant] = self.served.get(tenant, 0.0) + self.OUTPUT * tokens


#: orders of admission by name
ORDERS: dict[str, Callable[[], Queue]] = {
    "fcfs": Fcfs,
    "priority": lambda: Ordered(lambda seq: seq.request.traits.priority),
    "sjf": lambda: Ordered(lambda seq: seq.request.prompt + seq.request.output),
    "edf": lambda: Ordered(lambda seq: seq.request.arrival_s + seq.request.traits.deadline_s),
    "vtc": FairShare,
}

"""A request's journey under a policy: a generator that serves, transfers, races, cancels and waits.

A policy's `handle(request, fleet)` is given a `Journey` as its view of the fleet. What it yields, it waits for; what it
returns is the answer that the client gets. The generator runs in callbacks: a journey costs no event of its own.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from simpy.events import Event

from sim.answer import Answer, Part
from sim.errors import InputError
from sim.fleet.leg import CANCELLED, FAILED, REJECTED, Leg, Pending
from sim.fleet.link import CLIENT
from sim.request import Request, Traits
from sim.serving.timer import Timer

if TYPE_CHECKING:
    import random

    from sim.fleet.pool import LivePool
    from sim.journeys import Journeys
    from sim.quality import Answers

#: what a policy may return instead of an answer
ENDINGS = ("rejected", "timed_out", "failed", "cancelled")


Outcome = Leg | Answer | str | None
Steps = Generator[Any, Any, Outcome]  #: what `Policy.handle` returns


class Journey:
    """One request on its way, and what its policy sees of the fleet. Reading wakes nobody; see `FleetView`.

    Attributes:
        request: what the client asked.
        legs: what has been served for it, in order.
        network_j: energy of its transfers between sites where known, else NaN [J].
        escalations: how often a policy gave it to a stronger model; policies count it.
        context_tokens: tokens that a policy put in front of the client's prompt; policies set it.
        retrieval_s: from the client's first byte until they were there [s]; policies set it.
        open: False once the client has its answer, or will not get one.
    """

    __slots__ = (
        "_journeys", "_steps", "context_tokens", "escalations", "legs", "network_j", "open", "request", "retrieval_s",
    )  # fmt: skip

    def __init__(self, journeys: Journeys, request: Request) -> None:
        self._journeys, self.request = journeys, request
        self.legs: list[Leg] = []
        self.network_j = 0.0
        self.escalations = self.context_tokens = 0
        self.retrieval_s = 0.0
        self.open = True
        self._steps: Steps

    # -- what a policy sees -------------------------------------------------------------------------------------------

    @property
    def pools(self) -> Sequence[LivePool]:
        """Every pool of the fleet, in the order of the configuration."""
        return self._journeys.run.pools

    @property
    def rng(self) -> random.Random:
        """The routing stream."""
        return self._journeys.run.rng

    @property
    def now(self) -> float:
        """Simulated time [s]."""
        return float(self._journeys.run.env.now)

    @property
    def quality(self) -> Answers:
        """Whether models answer a request correctly, and what routers and verifiers guess of it."""
        return self._journeys.run.quality

    def __getattr__(self, name: str) -> Any:
        # whatever else a view of the fleet offers
        return getattr(self._journeys.run, name)

    # -- what a policy does -------------------------------------------------------------------------------------------

    def serve(
        self,
        pool: Any,
        *,
        prompt: int | None = None,
        output: int | None = None,
        cached: int = 0,
        role: str = "answer",
        source: str = CLIENT,
        nbytes: float | None = None,
        keep: bool = False,
        replica: int | None = None,
        hashes: Sequence[int] | None = None,
        traits: Traits | None = None,
    ) -> Leg:
        """Let a pool serve the request, or something for it. Yield the leg to wait for its end.

        Args:
            pool: one of `pools`.
            prompt, output: tokens; those of the request unless given.
            cached: leading prompt tokens whose KV cache comes along, fewer than `prompt`.
            role: ``answer`` streams to the client; any other word names work behind the scenes.
            source: where it is sent from: clients, or a site's name. A site that no link joins to the pool's sends by
                way of the client.
            nbytes: what is sent [bytes]; the text of the prompt unless given.
            keep: note the time of every token (`Leg.times`), as answers of several parts need.
            replica: of the pool; None leaves it to its balancer.
            hashes: names of the prompt's prefix units, `prefix_unit` tokens of the policy each; None for the client's.
            traits: tenant, adapter, images and the like; None for the client's.

        Returns:
            A leg that has ended at once, as failed or rejected, where the pool is out of service or cannot hold it.
        """
        journeys = self._journeys
        return journeys.serve(self, pool, prompt, output, cached, role, source, nbytes, keep, replica, hashes, traits)

    def cancel(self, leg: Leg) -> None:
        """End a leg early: what waits ends at once, what runs at the next step boundary; no matter if it is done."""
        if not leg.done:
            leg.pool.cancel(leg)

    def wait(self, seconds: float) -> Pending:
        """Something that happens after a while."""
        pending = Pending()
        if seconds <= 0.0:
            pending.settle()
        else:
            env = self._journeys.run.env
            env.schedule(Timer(env, lambda _: pending.settle()), delay=seconds)
        return pending

    def transfer(self, nbytes: float, source: str, target: str) -> Pending:
        """Send bytes from one place to another (clients, or a site's name); happens when they are there."""
        pending = Pending()
        network = self._journeys.run.network
        energy = network.energy_j(source, target, nbytes)
        self.network_j += float("nan") if energy is None else energy
        network.transfer(source, target, nbytes, pending.settle)
        return pending

    def race(self, *those: Pending) -> Pending:
        """Happens with the first of them; its value is that one. The others go on unless they are cancelled."""
        pending = Pending()
        for each in those:
            each.then(lambda _, each=each: pending.settle(each))  # type: ignore[misc]
        return pending

    def gather(self, *those: Pending) -> Pending:
        """Happens when all of them have."""
        pending, left = Pending(), [len(those)]

        def count(_: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                pending.settle()

        for each in those:
            each.then(count)
        return pending

    def stream(self, leg: Leg, start: int = 0, count: int | None = None) -> Part:
        """Tokens of a leg as they stream, as a part of an answer: all from the `start`-th unless `count` is given."""
        there = leg.sequence.emitted if leg.sequence is not None else 0
        most = max(0, there - start)
        return Part(leg, start, most if count is None else min(count, most))

    def relay(self, leg: Leg, count: int, by: Leg) -> Part:
        """`count` tokens that came of a leg, as part of an answer: the pool of the leg `by` sends them on to the client
        now, all at once."""
        self._journeys.relayed(by, count)
        link = by.pool.link
        down_s = link.downlink_s(by.request) if link is not None else 0.0
        return Part(leg, 0, count, self.now + down_s)

    def answer(self, *parts: Part, quality_of: Leg | None = None, quality: float | None = None) -> Answer:
        """An answer of one or several streams, one after the other."""
        return Answer(tuple(parts), None, quality_of, quality)

    def show(self, leg: Leg, quality_of: Leg | None = None, quality: float | None = None) -> Answer:
        """An answer that was held back, and is shown now, all at once."""
        link = leg.pool.link
        down_s = link.downlink_s(leg.request) if link is not None else 0.0
        return Answer((self.stream(leg),), self.now + down_s, quality_of, quality)

    # -- driving it ---------------------------------------------------------------------------------------------------

    def start(self, policy: Any) -> None:
        """Let the policy begin."""
        self._steps = policy.handle(self.request, self)
        self._go(None)

    def _go(self, value: Any) -> None:
        """Let the policy go on with a value, until it has to wait."""
        try:
            while True:
                pending = self._steps.send(value)
                if isinstance(pending, Pending):
                    if not pending.done:
                        pending.then(self._go)
                        return
                    value = pending.value
                elif isinstance(pending, Event) and pending.callbacks is not None:
                    pending.callbacks.append(lambda event: self._go(event.value))
                    return
                else:
                    accepted = "a leg, a wait, a transfer, a race or a SimPy event that is still to come"
                    raise InputError("policy", pending, f"to yield {accepted}")
        except StopIteration as stop:
            self.open = False
            for leg in self.legs:
                self.cancel(leg)  # what still runs, nobody waits for
            self._journeys.close(self, stop.value)


def follow(policy: Any, request: Request, fleet: Journey, tries: int = 3) -> Steps:
    """Go on as another policy or router would: ``outcome = yield from follow(inner, request, fleet)``.

    A router is asked for a pool, and asked again, at most `tries` times in all, where that one fails.
    """
    handle = getattr(policy, "handle", None)
    if handle is not None:
        outcome: Outcome = yield from handle(request, fleet)
        return outcome
    leg: Leg | None = None
    for _ in range(tries):
        pool = policy.choose(request, fleet)
        if pool is None:
            break
        leg = yield fleet.serve(pool)
        if leg.status != FAILED:
            return leg
    return "rejected" if leg is None else leg


class Routed:
    """A plain router as a policy: what fails is sent again, where the router then says.

    Args:
        router: any router.
        tries: how often a request is sent at the most.
    """

    def __init__(self, router: Any, tries: int = 3) -> None:
        self.router, self.tries = router, tries
        self.balancer = getattr(router, "balancer", None)

    def bind(self, fleet: Any) -> None:
        """Let the router look at the fleet."""
        bind = getattr(self.router, "bind", None)
        if bind is not None:
            bind(fleet)

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Serve the request where the router says."""
        return follow(self.router, request, fleet, self.tries)


__all__ = ["CANCELLED", "ENDINGS", "FAILED", "REJECTED", "Answer", "Journey", "Part", "Routed", "follow"]

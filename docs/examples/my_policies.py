"""A policy of one's own: see docs/policies.md, which shows this file."""


class MoveWhenSlow:
    """Begins at the edge; an answer that is not done after `limit_s` goes on in the cloud, from where it is."""

    balancer = "least_outstanding"  # how pools spread requests over their replicas

    def __init__(self, limit_s: float = 2.0) -> None:
        self.limit_s = limit_s

    def bind(self, fleet):  # once, before the first request
        kinds = {pool.site_kind: pool for pool in fleet.pools}
        self.edge, self.cloud = kinds["edge"], kinds["cloud"]

    def handle(self, request, fleet):  # once a request: what it yields, it waits for
        leg = fleet.serve(self.edge, keep=True)  # keep the times of tokens: the answer may have two parts
        yield fleet.race(leg, fleet.wait(self.limit_s))
        if not leg.done:
            fleet.cancel(leg)
            yield leg  # it ends with the step under way, which may be its last
        if leg.outcome != "cancelled":
            return leg
        out = leg.emitted()
        rest = yield fleet.serve(
            self.cloud, prompt=request.prompt + out, output=request.output - out, source=self.edge.site_name, keep=True
        )
        return fleet.answer(fleet.stream(leg, 0, out), fleet.stream(rest)) if out and rest.ok else rest

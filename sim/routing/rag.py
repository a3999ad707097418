"""Policies that put documents in front of a question, or answer it with a model that was tuned to them."""

from __future__ import annotations

from typing import Any

from sim.errors import instance, number, whole
from sim.fleet.leg import COMPLETED, FAILED, Leg
from sim.fleet.link import CLIENT
from sim.journey import Journey, Steps, follow
from sim.request import Request
from sim.retrieval import Corpus, VectorSearch
from sim.routing.base import FleetView, PoolView
from sim.routing.candidates import Candidates, least_outstanding, side
from sim.routing.cascade import check_stage

TRIES = 3  #: how often a question is sent to be answered, where pools fail


class _InContext:
    """Answers questions with documents in front of them; what the two policies below share."""

    balancer = "least_outstanding"

    def __init__(self, documents: Corpus, answer: str, accuracy_gain: float) -> None:
        accepted = "documents, such as {_target_: sim.retrieval.Corpus, count: 1000, chunk_tokens: 512}"
        self._documents = instance("router.documents", documents, Corpus, accepted)
        self._answer_name = answer
        self._gain = number("router.accuracy_gain", accuracy_gain, "a number from -1 to 1", low=-1.0, high=1.0)
        self.prefix_unit = self._documents.unit

    def bind(self, fleet: FleetView) -> None:
        """Check that a pool that answers is there."""
        self._answerers = side(fleet, "router.answer", self._answer_name)
        self._documents.begin(fleet.seed)

    def _answered(self, request: Request, fleet: Journey, chunks: list[int], source: str) -> Steps:
        """Answer the question behind these chunks, which are at `source`, or without any."""
        context = len(chunks) * self._documents.chunk_tokens
        names = self._documents.names(chunks, request.traits.adapter)
        fleet.context_tokens = context
        question = Request(request.id, request.arrival_s, request.prompt + context, request.output)
        leg: Leg | None = None
        for _ in range(TRIES):
            pool = least_outstanding(self._answerers.holding(question))
            if pool is None:
                break
            nbytes = None if source != CLIENT or not context else self._question_bytes(pool, request)
            leg = yield fleet.serve(pool, prompt=question.prompt, source=source, nbytes=nbytes, hashes=names)
            if leg.status == COMPLETED:
                right = fleet.quality.lifted(request, leg.pool.name, self._gain if chunks else 0.0)
                return fleet.answer(fleet.stream(leg), quality=right)
            if leg.status != FAILED:
                break
        if leg is None:
            fleet.check_size(question)
        return "rejected" if leg is None else leg

    @staticmethod
    def _question_bytes(pool: Any, request: Request) -> float:
        """What a client sends where the documents are with the server already [bytes]."""
        return float(request.prompt * (4.0 if pool.link is None else pool.link.spec.prompt_bytes_per_token))


class Rag(_InContext):
    """Retrieval-augmented generation: embed the question, search, rerank, and answer with the best chunks in front.

    A question goes to a pool that embeds it (its prompt alone), then to the search, which stands at that pool's site.
    Each of `candidates` chunks is scored with the question by a pool that reranks; the best `chunks` of them go in
    front of the prompt, best match first, and from that site to where the answer is generated. With `prefix_caching`
    there, the KV of chunks that come first again is kept and shared: the cache of hot documents (RAGCache). What the
    search draws, costs and emits is unknown. Where embedding fails the question is answered without documents, where
    reranking fails with those that the search put first.

    Args:
        documents: what is searched, a `Corpus`.
        search: how long that takes, a `VectorSearch`.
        answer, embed, rerank: each a kind of site or the name of a pool; `rerank` None leaves that stage out.
        chunks: that go into the prompt; candidates: that are reranked.
        hot_first: True puts chunks that are found more often first, which lets more of their KV be shared.
        accuracy_gain: added to the score of the model that answers with documents in its prompt, in [-1, 1].

    Source: Lewis et al., "Retrieval-Augmented Generation", arXiv 2005.11401; stages as in Shen et al., arXiv
    2412.11854; KV of documents in a tree by their order: Jin et al., "RAGCache", arXiv 2404.12457.
    """

    def __init__(
        self,
        documents: Corpus,
        search: VectorSearch,
        answer: str = "answer",
        embed: str = "embed",
        rerank: str | None = "rerank",
        chunks: int = 5,
        candidates: int = 20,
        hot_first: bool = False,
        accuracy_gain: float = 0.0,
    ) -> None:
        super().__init__(documents, answer, accuracy_gain)
        accepted = "a search, such as {_target_: sim.retrieval.VectorSearch, search_s: 0.01}"
        self._search = instance("router.search", search, VectorSearch, accepted)
        self._names = embed, rerank
        self._chunks = whole("router.chunks", chunks, "a whole number of at least 1", low=1)
        accepted = f"a whole number of at least router.chunks ({chunks})"
        self._candidates = whole("router.candidates", candidates, accepted, low=self._chunks)
        self._documents.check("router.candidates", self._candidates)
        self._hot_first = instance("router.hot_first", hot_first, bool, "true | false")

    def bind(self, fleet: FleetView) -> None:
        """Check that the pools of every stage are there."""
        super().bind(fleet)
        embed, rerank = self._names
        self._embedders = side(fleet, "router.embed", embed)
        self._rerankers = side(fleet, "router.rerank", rerank) if rerank is not None else Candidates([])
        self._search.begin()

    def unaccounted(self, pool: str) -> tuple[str, ...]:
        """What the accounts of a pool leave out."""
        here = pool == self._embedders.pools[0].name
        return ("energy, carbon and cost of the vector search are unknown and left out",) if here else ()

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Find documents, and answer with them."""
        pool = self._stage(self._embedders, request.prompt)
        embedding: Leg | None = None
        if pool is not None:
            embedding = yield self._read(fleet, pool, request.prompt, "embed", CLIENT)
        if embedding is None or not embedding.ok:
            return (yield from self._answered(request, fleet, [], CLIENT))
        site = embedding.pool.site_name
        yield fleet.wait(self._search.done_s(fleet.now) - fleet.now)
        found = self._documents.find(request.id, self._candidates)
        if self._rerankers.pools:
            yield from self._reranked(request, fleet, site)
        best = found[: self._chunks]
        if self._hot_first:
            best.sort()
        fleet.retrieval_s = fleet.now - request.arrival_s
        return (yield from self._answered(request, fleet, best, site))

    def _reranked(self, request: Request, fleet: Journey, site: str) -> Any:
        """Let every candidate be scored, each with the question."""
        tokens = request.prompt + self._documents.chunk_tokens
        pool = self._stage(self._rerankers, tokens)
        if pool is not None:
            yield fleet.gather(*(self._read(fleet, pool, tokens, "rerank", site) for _ in range(self._candidates)))

    @staticmethod
    def _stage(candidates: Candidates, tokens: int) -> PoolView | None:
        """The pool of a stage that takes a text of so many tokens."""
        return least_outstanding(candidates.holding(Request(-1, 0.0, tokens, 1)))

    @staticmethod
    def _read(fleet: Journey, pool: PoolView, tokens: int, role: str, source: str) -> Leg:
        """Let a model read a text once: a prompt, and one token for its vector or score."""
        traits = fleet.request.traits._replace(adapter=0, images=0, image_tokens=0)
        return fleet.serve(pool, prompt=tokens, output=1, role=role, source=source, hashes=(), traits=traits)


class LongContext(_InContext):
    """All documents in front of every question, always in the same order, so that a prefix cache holds them.

    They are with the server: clients send the question alone.

    Args:
        documents: what goes into the prompt, a `Corpus`.
        answer: a kind of site or the name of a pool.
        accuracy_gain: added to the score of the model that answers, in [-1, 1].
    """

    def __init__(self, documents: Corpus, answer: str = "cloud", accuracy_gain: float = 0.0) -> None:
        super().__init__(documents, answer, accuracy_gain)
        self._all = list(range(documents.count))

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Answer with all documents in front."""
        return self._answered(request, fleet, self._all, CLIENT)


class FineTuned:
    """Answers of a model that was tuned to the documents: sent where another router says, with a higher score.

    Adapters of requests, which engines load, are the workload's. Training them is not counted.

    Args:
        router: says which pool serves a request.
        accuracy_gain: added to the score of the model that answers, in [-1, 1].
    """

    def __init__(self, router: Any, accuracy_gain: float = 0.0) -> None:
        self._router = check_stage("router.router", router)
        self.balancer = getattr(router, "balancer", None)
        self._gain = number("router.accuracy_gain", accuracy_gain, "a number from -1 to 1", low=-1.0, high=1.0)

    def bind(self, fleet: FleetView) -> None:
        """Let the router look at the fleet."""
        bind = getattr(self._router, "bind", None)
        if bind is not None:
            bind(fleet)

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Serve the request where the router says."""
        outcome = yield from follow(self._router, request, fleet)
        if not isinstance(outcome, Leg) or not outcome.ok:
            return outcome
        right = fleet.quality.lifted(request, outcome.pool.name, self._gain)
        return fleet.answer(fleet.stream(outcome), quality=right)

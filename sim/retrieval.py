"""Documents that go into prompts: which ones a question finds, how long a search takes, and names of their KV."""

from __future__ import annotations

import heapq
import math

from sim.copula import normal_cdf
from sim.draws import Normals
from sim.errors import InputError, number, whole
from sim.workload.popularity import Popularity

MOST = 64  #: chunks of one prompt that are drawn one by one
_DRAWS = 4 * MOST  #: numbers set aside for a request; repeated draws of hot chunks use them up


class Corpus:
    """Chunks of text, of which some are found more often than others.

    Which chunks a question finds depends on the seed and the number of the request alone, so every policy and fleet
    finds the same ones, and the first k of more are those of fewer.

    Args:
        count: chunks that questions find; an index may hold more that none does.
        chunk_tokens: length of each [tokens].
        popularity: ``uniform``, ``zipf`` or one weight a chunk.
        exponent: of Zipf's law; None is 1.
        unit: tokens that a name of a prefix stands for, a multiple of the engines' block size [tokens].
    """

    def __init__(
        self,
        count: int,
        chunk_tokens: int,
        popularity: str | list[float] = "uniform",
        exponent: float | None = None,
        unit: int = 16,
    ) -> None:
        self._popularity = Popularity("router.documents", count, popularity, exponent)
        self.count = self._popularity.count
        self.unit = whole("router.documents.unit", unit, "a whole number of at least 1 token", low=1)
        accepted = f"a whole number of tokens, a multiple of router.documents.unit ({self.unit})"
        self.chunk_tokens = whole("router.documents.chunk_tokens", chunk_tokens, accepted, low=1)
        if self.chunk_tokens % self.unit:
            raise InputError("router.documents.chunk_tokens", chunk_tokens, accepted)
        self.begin(0)

    def begin(self, seed: int) -> None:
        """Start afresh for a run with this root seed."""
        self._normals = Normals(seed)
        self._nodes: dict[tuple[int, int], int] = {}

    def check(self, key: str, chunks: int) -> None:
        """Refuse to draw so many different chunks.

        Raises:
            InputError: there are not that many.
        """
        most = min(MOST, self.count)
        if chunks > most:
            raise InputError(key, chunks, f"at most {most} (router.documents.count, and {MOST})")

    def find(self, request: int, chunks: int) -> list[int]:
        """The chunks that a request's question finds, all different, the best match first."""
        found: dict[int, None] = {}
        for draw in range(request * _DRAWS, (request + 1) * _DRAWS):
            u = normal_cdf(self._normals.one("document", draw))
            found[min(int(self._popularity.one(u)), self.count - 1)] = None
            if len(found) == chunks:
                return list(found)
        hottest = (chunk for chunk in range(self.count) if chunk not in found)
        return [*found, *(next(hottest) for _ in range(chunks - len(found)))]

    def names(self, chunks: list[int], adapter: int = 0) -> tuple[int, ...]:
        """Names of the prefix units of a prompt that begins with these chunks.

        KV of a chunk is that of all tokens before it too, so it is shared where the same chunks come before it in the
        same order, under the same adapter. The names are below 0: those of workloads are not.
        """
        names: list[int] = []
        node, each = -1 - adapter, self.chunk_tokens // self.unit
        for chunk in chunks:
            node = self._nodes.setdefault((node, chunk), len(self._nodes))
            names.extend(range(-1 - node * each, -1 - (node + 1) * each, -1))
        return tuple(names)


class VectorSearch:
    """The search for a question's nearest chunks: a queue with several servers, first come first served.

    A search takes `search_s` (`index_chunks` / `measured_chunks`)^`exponent`.

    Args:
        search_s: time of one search in an index of `measured_chunks` chunks, on one server [s].
        index_chunks: size of the index.
        measured_chunks: size for which `search_s` holds.
        exponent: how the time grows with the index.
        servers: searches at once.

    Attributes:
        duration_s: time of one search [s].

    Source: throughput falls about 20 times from 1 million to 100 million chunks (Shen et al., "Towards Understanding
    Systems Trade-offs in Retrieval-Augmented Generation Model Inference", arXiv 2412.11854): log 20 / log 100 = 0.65.
    """

    def __init__(
        self,
        search_s: float,
        index_chunks: float = 1e6,
        measured_chunks: float = 1e6,
        exponent: float = 0.65,
        servers: int = 1,
    ) -> None:
        number("router.search.search_s", search_s, "a time >= 0 s", low=0.0)
        number("router.search.index_chunks", index_chunks, "a number > 0", above=0.0)
        number("router.search.measured_chunks", measured_chunks, "a number > 0", above=0.0)
        number("router.search.exponent", exponent, "a number from 0 to 1", low=0.0, high=1.0)
        self.duration_s = search_s * float((index_chunks / measured_chunks) ** exponent)  # of one search
        self._servers = whole("router.search.servers", servers, "a whole number of at least 1", low=1)
        self.begin()

    def begin(self) -> None:
        """Start afresh: all servers are idle."""
        self._free_s = [-math.inf] * self._servers

    def done_s(self, now: float) -> float:
        """Take a search that comes now; returns when it is done [s]."""
        done = max(now, self._free_s[0]) + self.duration_s
        heapq.heapreplace(self._free_s, done)
        return done

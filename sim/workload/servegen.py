"""Requests of many clients, each with its own rate, burstiness and lengths, that change over the day."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sim.errors import InputError
from sim.qoe import SLOClass
from sim.rng import Streams
from sim.workload import checks
from sim.workload.base import RequestBatch
from sim.workload.client_files import DATASET, Client, ClientData, Window, read_clients
from sim.workload.lengths import FloatArray, IntArray, normal_cdf
from sim.workload.reasoning import visible
from sim.workload.synthetic import draw_slo_classes
from sim.workload.traits import TraitColumns, TraitDraws, TraitModel

BoolArray = npt.NDArray[np.bool_]
BATCH = 8192  #: requests yielded at a time
_INPUTS = (("input_tokens",), ("text_tokens", "image_tokens"))  #: fields of prompts, of text and of multimodal clients
_MORE_INPUTS = ("audio_tokens", "video_tokens")


class ServeGenWorkload:
    """A mix of clients as ServeGen measured them, or any in its format (`sim.workload.client_files`).

    In each of its windows a client is a stationary renewal process with the window's rate and the shape of its gaps.
    Lengths are drawn from the distributions of that time: prompt and output by a Gaussian copula, all else
    independently. A prompt is text and images (and audio and video, as tokens that nothing encodes). Image tokens are
    taken as those of the whole request, and grow with the number of images. Of the output, the `reason_ratio` is hidden
    thinking; one token is left to be seen.

    Each client and window has random streams of its own: a run over a part of the day, or of a part of the clients, has
    the requests of the whole.

    Args:
        path: the folder.
        client_share: share of the clients that take part, drawn at random, in (0, 1]; their rates stay.
        start_s, duration_s: part of the day [s]; its start becomes t = 0. None reaches to the end.
        rate_scale: 2 doubles all rates.
        rho: correlation of the normals behind prompt and output lengths of a client, in [-1, 1]; 0 is independent.
        drop_incomplete: True leaves out clients without a data set, rather than refuse them.
        limit: most requests; None for no bound.
        slo_classes, slo_mix: as in `sim.workload.synthetic`.
        priorities, deadlines, adapters: see `sim.workload.traits`. Tenants are the clients.
    """

    def __init__(
        self,
        path: str | Path,
        client_share: float = 1.0,
        start_s: float = 0.0,
        duration_s: float | None = None,
        rate_scale: float = 1.0,
        rho: float = 0.0,
        drop_incomplete: bool = False,
        limit: int | None = None,
        slo_classes: Sequence[SLOClass] = (SLOClass(),),
        slo_mix: Sequence[float] | None = None,
        priorities: object = None,
        deadlines: object = None,
        adapters: object = None,
    ) -> None:
        if not isinstance(path, str | Path) or not str(path):
            raise InputError("workload.path", path, "a folder with the files of clients")
        accepted = "a share > 0, at most 1"
        self.client_share = checks.number("workload.client_share", client_share, accepted, math.ulp(0.0), 1.0)
        self.start_s = checks.number("workload.start_s", start_s, "a time >= 0 s", 0.0)
        self.duration_s = checks.duration(duration_s, "or null to reach to the end")
        self.rate_scale = checks.number("workload.rate_scale", rate_scale, "a factor > 0 (1e-6 to 1e6)", 1e-6, 1e6)
        self.rho = checks.number("workload.rho", rho, "a correlation from -1 to 1", -1.0, 1.0)
        self.limit = checks.limit("workload.limit", limit)
        self.slo_classes = checks.slo_classes(slo_classes)
        self._slo_shares = checks.slo_mix(slo_mix, self.slo_classes)
        self._traits = TraitModel(self.slo_classes, None, priorities, deadlines, adapters, own=("tenant",))
        self.clients = self._complete(Path(path).expanduser(), checks.flag("workload.drop_incomplete", drop_incomplete))
        end_s = max(client.windows[-1].end_s for client in self.clients)
        if self.start_s >= end_s:
            raise InputError("workload.start_s", start_s, f"a time before the end of the traces ({end_s:g} s)")

    def _complete(self, path: Path, drop: bool) -> list[Client]:
        found = read_clients(path)
        whole = [client for client in found if client.data is not None]
        missing = [client.name for client in found if client.data is None]
        if missing and (not drop or not whole):
            accepted = "a data set for each client, or workload.drop_incomplete=true to leave out those without"
            raise InputError("workload.path", f"{path}/{missing[0]}{DATASET}", f"{accepted} ({len(missing)} here)")
        return whole

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        """Yield requests in order of arrival, some 8,000 at a time.

        Raises:
            InputError: no request is left, or a distribution that is needed cannot be read.
        """
        sent = 0
        slo_rng, draws = streams.get("slo"), self._traits.start(streams)
        for requests in self._stretches(streams):
            for at in range(0, len(requests), BATCH):
                left = BATCH if self.limit is None else min(BATCH, self.limit - sent)
                part = requests.take(slice(at, at + left))
                yield self._batch(part, slo_rng, draws)
                sent += len(part)
                if sent == self.limit:
                    return
        if not sent:
            accepted = f"a part of the day and of the clients with at least one request (start_s={self.start_s:g})"
            raise InputError("workload.duration_s", self.duration_s, accepted)

    def expected_requests(self) -> float | None:
        """About how many requests will come, were all clients to take part in equal shares."""
        begin, end = self.start_s, self.start_s + self.duration_s
        whole = sum(
            window.rate * max(min(window.end_s, end) - max(window.start_s, begin), 0.0)
            for client in self.clients
            for window in client.windows
        )
        expected = whole * self.rate_scale * self.client_share
        return expected if self.limit is None else min(expected, self.limit)

    def _chosen(self, streams: Streams) -> list[int]:
        """Which clients take part, in their order."""
        count = max(round(self.client_share * len(self.clients)), 1)
        order = streams.get("clients").permutation(len(self.clients))
        return sorted(order[:count].tolist())

    def _stretches(self, streams: Streams) -> Iterator[_Requests]:
        """The requests of all clients in order of arrival, from one start of windows to the next."""
        begin, end = self.start_s, self.start_s + self.duration_s
        by_start: dict[float, list[tuple[int, Window]]] = {}
        for number in self._chosen(streams):
            for window in self.clients[number].windows:
                if window.rate > 0.0 and window.end_s > begin and window.start_s < end:
                    by_start.setdefault(window.start_s, []).append((number, window))
        starts = sorted(by_start)
        later = _Requests.join([])
        for start_s, until_s in zip(starts, [*starts[1:], math.inf]):
            drawn = [self._draw(streams, number, window) for number, window in by_start[start_s]]
            ready, later = _Requests.join([later, *drawn]).split(until_s)
            yield ready.take((ready.arrival_s >= begin) & (ready.arrival_s < end))

    def _draw(self, streams: Streams, number: int, window: Window) -> _Requests:
        """The requests of one client in one window."""
        client = self.clients[number]
        arrival_s = _arrivals(streams.get(f"client {client.name} at {window.start_s:g}"), window, self.rate_scale)
        rng = streams.get(f"lengths {client.name} at {window.start_s:g}")
        assert client.data is not None
        return _lengths(rng, arrival_s, number, client.data, client.data.at(window.start_s), self.rho)

    def _batch(self, part: _Requests, slo_rng: np.random.Generator, draws: TraitDraws) -> RequestBatch:
        slo_class = draw_slo_classes(slo_rng, self._slo_shares, len(part))
        columns = TraitColumns(tenant=part.client)
        if part.images.any():
            columns.images, columns.image_tokens = part.images, part.image_tokens
        if part.reasoning.any():
            columns.reasoning_tokens = part.reasoning
        draws.senders(columns, slo_class)
        draws.deadlines(columns, slo_class, part.output)
        return RequestBatch(part.arrival_s - self.start_s, part.prompt, part.output, slo_class, traits=columns.rows())


@dataclass(frozen=True, slots=True)
class _Requests:
    """Columns of requests; times are those of the day [s]."""

    arrival_s: FloatArray
    client: IntArray
    prompt: IntArray
    output: IntArray
    images: IntArray
    image_tokens: IntArray
    reasoning: IntArray

    def __len__(self) -> int:
        return len(self.arrival_s)

    def take(self, chosen: slice | BoolArray | IntArray) -> _Requests:
        return _Requests(*(getattr(self, name)[chosen] for name in self.__slots__))

    def split(self, t_s: float) -> tuple[_Requests, _Requests]:
        """Those before a time, in order of arrival, and the others."""
        order = np.argsort(self.arrival_s, kind="stable")
        before = int(np.searchsorted(self.arrival_s[order], t_s))
        return self.take(order[:before]), self.take(order[before:])

    @staticmethod
    def join(parts: Sequence[_Requests]) -> _Requests:
        if not parts:
            return _Requests(np.empty(0), *(np.empty(0, dtype=np.int64) for _ in range(6)))
        return _Requests(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Requests.__slots__))


def _arrivals(rng: np.random.Generator, window: Window, rate_scale: float) -> FloatArray:
    """Times [s] of a stationary renewal process in a window.

    The first gap is a uniform part of a length-biased one, so that the window has its rate without bias.
    Source: Cox, Renewal Theory, 1962 (equilibrium renewal process).
    """
    k, rate = window.shape, window.rate * rate_scale
    length = (window.end_s - window.start_s) * rate  # in mean gaps
    if window.pattern == "Gamma":
        first = rng.random() * rng.standard_gamma(k + 1.0) / k
        mean = k
    else:
        mean = math.gamma(1.0 + 1.0 / k)
        first = rng.random() * rng.standard_gamma(1.0 + 1.0 / k) ** (1.0 / k) / mean
    times = [np.array([first])]
    count = int(length + 4.0 * math.sqrt(length)) + 16
    while times[-1][-1] < length:
        gaps = rng.standard_gamma(k, count) if window.pattern == "Gamma" else rng.weibull(k, count)
        times.append(times[-1][-1] + np.cumsum(gaps / mean))
    reached = np.concatenate(times)
    found: FloatArray = window.start_s + reached[reached < length] / rate
    return found


def _lengths(
    rng: np.random.Generator, arrival_s: FloatArray, client: int, data: ClientData, at: int, rho: float
) -> _Requests:
    """Draw what requests hold, one column after the other."""
    n = len(arrival_s)
    in_u, out_u = rng.random((2, n)) if rho == 0.0 else _joined(rng.standard_normal((n, 2)), rho)
    text, *pictures = next((names for names in _INPUTS if data.has(at, names[0])), _INPUTS[0])
    prompt = data.of(at, text).tokens(in_u)
    images = image_tokens = np.zeros(n, dtype=np.int64)
    if pictures:
        u = rng.random(n)
        image_tokens = data.of(at, pictures[0]).tokens(u)
        many = data.of(at, "image_count").tokens(u) if data.has(at, "image_count") else np.ones_like(image_tokens)
        images = np.where(image_tokens > 0, np.maximum(many, 1), 0)
        prompt = prompt + image_tokens
    for name in _MORE_INPUTS:
        if data.has(at, name):
            prompt = prompt + data.of(at, name).tokens(rng.random(n))
    output = np.maximum(data.of(at, "output_tokens").tokens(out_u), 1)
    hidden = np.zeros(n, dtype=np.int64)
    if data.has(at, "reason_ratio"):
        share = np.minimum(data.of(at, "reason_ratio").quantile(rng.random(n)), 1.0)
        hidden = visible((share * output).astype(np.int64), output)
    whose = np.full(n, client, dtype=np.int64)
    return _Requests(arrival_s, whose, np.maximum(prompt, 1), output, images, image_tokens, hidden)


def _joined(z: FloatArray, rho: float) -> tuple[FloatArray, FloatArray]:
    """Two columns of uniforms joined by a Gaussian copula."""
    return normal_cdf(z[:, 0]), normal_cdf(rho * z[:, 0] + math.sqrt(1.0 - rho**2) * z[:, 1])

"""An accelerator: what its maker states, and how fast serving engines really drive it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sim.errors import InputError

Knots = tuple[tuple[float, float], ...]  #: a curve, linear between its points and constant outside


@dataclass(frozen=True, slots=True)
class TimingCoefficients:
    """How a serving engine uses the chip: efficiencies over *peak* rates, and overheads.

    They belong to the chip and the kernels of its class; models differ by their shape alone. Curves default to flat.

    Attributes:
        compute_eff: share of peak FLOP/s that large GEMMs in 16 bit reach.
        weight_eff: share of peak bandwidth at which weights stream for one token.
        kv_eff: share of peak bandwidth at which decode attention reads the KV cache.
        attn_eff: share of peak FLOP/s that prefill attention over long contexts reaches.
        step_overhead_s: fixed time a step [s].
        layer_overhead_s: fixed time a layer and step, beside attention: launches of GEMMs and of small kernels [s].
        seq_overhead_s: time a sequence and step, such as sampling [s].
        peer_overhead_s: time a step and further xPU of a tensor-parallel replica, as hosts hand out work [s].
        link_bytes_per_s: bandwidth of one xPU towards its tensor-parallel peers [bytes/s].
        link_latency_s: time an all-reduce takes before its bytes [s].
        compute_curve: (tokens of a step, share of `compute_eff`): small GEMMs leave cores idle.
        weight_curve: (tokens of a step, share of `weight_eff`).
        gemm_tile: tokens that GEMM kernels compute at once; a step's tokens come in whole tiles.
        narrow_eff: share of `compute_eff` that GEMMs reach in formats narrower than 16 bit.
        moe_eff: speed of the grouped GEMMs of routed experts over that of dense ones.
        moe_overhead_s: further time a layer with routed experts and step: routing, sorting and gathering tokens [s].
        activation_passes: times that elementwise kernels pass a layer's hidden vector through memory, a token.
        attn_start: (KV heads on the xPU, over all sequences; time a layer that attention takes before it reads [s]).
        attn_tile: rows that a decoding query takes in the tile of a step with prefill; 1 where kernels split contexts.
        attn_pad: context tokens that tiles add to each query row of a step with prefill.
        idle_tile_s: time of a tile without work, in a step with prefill [s].
        sort_s: time to sort one logit of one sequence, for sampling by top-p or top-k [s].
        penalty_step_s, penalty_token_s: time a step to apply repetition penalties, and time for each token that its
            decoding sequences have generated: the host counts all of them anew [s].
        skew_decode, skew_mixed: attention skew alpha of steps without and with prefill, as (KV heads, alpha) and
            (query heads, alpha), over all sequences on one xPU. With M the longest of n contexts of sum S, decode
            attention takes as long as S + alpha * (n * M - S) tokens.
    """

    compute_eff: float
    weight_eff: float
    kv_eff: float
    attn_eff: float
    step_overhead_s: float
    layer_overhead_s: float
    seq_overhead_s: float
    link_bytes_per_s: float | None = None
    link_latency_s: float = 0.0
    compute_curve: Knots = ()
    weight_curve: Knots = ()
    gemm_tile: int = 1
    narrow_eff: float = 1.0
    moe_eff: float = 1.0
    moe_overhead_s: float = 0.0
    activation_passes: float = 0.0
    attn_start: Knots = ()
    attn_tile: float = 1.0
    attn_pad: float = 0.0
    idle_tile_s: float = 0.0
    sort_s: float = 0.0
    penalty_step_s: float = 0.0
    penalty_token_s: float = 0.0
    peer_overhead_s: float = 0.0
    skew_decode: Knots = ()
    skew_mixed: Knots = ()

    def __post_init__(self) -> None:
        positive = (
            "compute_eff",
            "weight_eff",
            "kv_eff",
            "attn_eff",
            "gemm_tile",
            "narrow_eff",
            "moe_eff",
            "attn_tile",
        )
        overheads = (
            "step_overhead_s",
            "layer_overhead_s",
            "seq_overhead_s",
            "link_latency_s",
            "idle_tile_s",
            "sort_s",
            "moe_overhead_s",
            "peer_overhead_s",
            "penalty_step_s",
            "penalty_token_s",
        )
        check_finite("timing", self, positive=positive, non_negative=(*overheads, "activation_passes", "attn_pad"))
        if self.link_bytes_per_s is not None:
            check_finite("timing", self, positive=("link_bytes_per_s",))
        for key in ("skew_decode", "skew_mixed"):
            _check_knots(f"timing.{key}", getattr(self, key), "heads", "alpha in [0, 1]", lambda y: 0.0 <= y <= 1.0)
        _check_knots("timing.attn_start", self.attn_start, "KV heads", "a time >= 0 s", lambda y: y >= 0.0)
        for key in ("compute_curve", "weight_curve"):
            _check_knots(f"timing.{key}", getattr(self, key), "tokens", "a share > 0", lambda y: y > 0.0)


@dataclass(frozen=True, slots=True)
class PowerCoefficients:
    """Power of one busy xPU: P = static_w + max(active_w, compute_w * MFU + memory_w * MBU) while a kernel runs.

    Between kernels, while the chip waits for its host or a peer, it is static_w. The mean over all kernels of a step
    and the gaps between them is at most peak_w. A kernel among gaps may draw more than the power limit, for limits hold
    means: clocks are highest where there is room, and a FLOP takes more energy at higher clocks. So `compute_w` may be
    far above the TDP; kernels that follow one another without gaps top out.

    Attributes:
        static_w: power of a chip at work, between two kernels [W].
        compute_w: further power at peak FLOP/s, at clocks that no limit holds back [W].
        memory_w: further power at peak bandwidth [W].
        active_w: least further power of a kernel that keeps all cores busy: sorts, small attention [W].
        peak_w: mean power at which steps top out at their measured speeds, which the limit already holds back [W];
            None if they were timed without a limit, so that one that would pass the TDP slows down.
    """

    static_w: float
    compute_w: float
    memory_w: float
    active_w: float = 0.0
    peak_w: float | None = None

    def __post_init__(self) -> None:
        check_finite("power", self, non_negative=("static_w", "compute_w", "memory_w", "active_w"))
        if self.peak_w is not None:
            check_finite("power", self, positive=("peak_w",))
            if self.peak_w <= self.static_w:
                raise InputError("power.peak_w", self.peak_w, f"more than static_w ({self.static_w:g} W)")


@dataclass(frozen=True, slots=True)
class XPU:
    """One accelerator. What is unknown is None, never 0.

    Attributes:
        id, name: catalogue id and the maker's name.
        peak_flops: dense peak by number format [FLOP/s]; a format that is absent is not computed in.
        memory_bytes: device memory [bytes].
        bandwidth_bytes_per_s: peak memory bandwidth [bytes/s].
        tdp_w: power limit [W].
        idle_w: power with an engine loaded and nothing to do [W].
        standby_s, sleep_w: seconds without work after which an idle xPU draws less, and how much [s], [W]; None where
            it is not known to do so. A power log is compared with them; a simulated fleet idles at `idle_w`.
        timing, power: coefficients, see their classes.
        memory_reserved_bytes: memory that runtime, activations and graphs take beside weights [bytes].
        die_mm2, node_nm: die area [mm2] and manufacturing node [nm].
        memory_type: such as HBM3, GDDR6, LPDDR5.
        weight_only_formats: formats in which weights can be stored and are widened to 16 bit to be multiplied.
        provenance: for every field that the catalogue gave, its (unit, source, kind);
            kind is measured | published | derived | assumed.
    """

    id: str
    name: str
    peak_flops: Mapping[str, float]
    memory_bytes: float
    bandwidth_bytes_per_s: float
    tdp_w: float
    idle_w: float
    timing: TimingCoefficients
    power: PowerCoefficients
    memory_reserved_bytes: float = 0.0
    die_mm2: float | None = None
    node_nm: float | None = None
    standby_s: float | None = None
    sleep_w: float | None = None
    memory_type: str | None = None
    weight_only_formats: tuple[str, ...] = ()
    provenance: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"xpus.{self.id}"
        check_finite(where, self, positive=("memory_bytes", "bandwidth_bytes_per_s", "tdp_w"))
        check_finite(where, self, non_negative=("idle_w", "memory_reserved_bytes"))
        for name in ("standby_s", "sleep_w"):
            if getattr(self, name) is not None:
                check_finite(where, self, non_negative=(name,))
        for name in ("die_mm2", "node_nm"):
            if getattr(self, name) is not None:
                check_finite(where, self, positive=(name,))
        if not self.peak_flops:
            raise InputError(f"{where}.peak_flops", dict(self.peak_flops), "a peak rate for at least one format")
        for key, value in self.peak_flops.items():
            if not (isinstance(value, (int, float)) and 0.0 < value < math.inf):
                raise InputError(f"{where}.peak_flops.{key}", value, "a finite rate > 0 FLOP/s")
        if not self.power.static_w < self.tdp_w:
            raise InputError(f"{where}.power.static_w", self.power.static_w, f"less than tdp_w ({self.tdp_w:g} W)")

    @property
    def weight_formats(self) -> tuple[str, ...]:
        """Formats in which this chip can hold and run weights."""
        return (*self.peak_flops, *self.weight_only_formats)

    def flops(self, precision: str) -> float:
        """Peak rate at a number format [FLOP/s].

        Raises:
            InputError: the chip lacks the format; the message names the formats it has.
        """
        try:
            return self.peak_flops[precision]
        except KeyError:
            raise InputError(f"precision on xpu {self.id}", precision, " | ".join(sorted(self.peak_flops))) from None


def check_finite(where: str, owner: object, positive: Iterable[str] = (), non_negative: Iterable[str] = ()) -> None:
    """Check that the named attributes of `owner` are finite numbers > 0 or >= 0.

    Raises:
        InputError: one is not; the message names it as `where.attribute`.
    """
    for names, above_zero in ((positive, True), (non_negative, False)):
        for name in names:
            value = getattr(owner, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (above_zero and value == 0):
                raise InputError(f"{where}.{name}", value, f"a finite number {'> 0' if above_zero else '>= 0'}")


def _check_knots(key: str, knots: Knots, what: str, accepted: str, accept: Callable[[float], bool]) -> None:
    xs = [x for x, _ in knots]
    if xs != sorted(set(xs)) or not all(accept(y) for _, y in knots):
        raise InputError(key, knots, f"pairs ({what}, y) with rising {what} and y {accepted}")

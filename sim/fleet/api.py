"""A pool that is bought by the token: a provider's API, of which nothing is known but its prices and its latency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sim.accounting.api_price import ApiPrice
from sim.errors import InputError, instance, number, provider, whole
from sim.fleet.engine_settings import EngineSettings
from sim.fleet.latency import Latency, LogNormal
from sim.fleet.outages import check_outages
from sim.hardware.model import Model

_JOULES = "an energy > 0 J per token"


class AnyPool:
    """What a site's pools are: replicas (`sim.fleet.spec.Pool`), or an API."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class OutputRate:
    """How fast a stream of the provider's is: log-normal from request to request, steady within one.

    Attributes:
        median: [tokens/s]; sigma: of its logarithm.
    """

    median: float
    sigma: float = 0.0

    def __post_init__(self) -> None:
        number("tokens_per_s.median", self.median, "a speed > 0 tokens/s", above=0.0)
        number("tokens_per_s.sigma", self.sigma, "a number >= 0", low=0.0)

    @property
    def token_s(self) -> LogNormal:
        """Time of a token [s]: its inverse, log-normal too."""
        return LogNormal(1.0 / self.median, self.sigma)


@dataclass(frozen=True, slots=True)
class EnergyEstimate:
    """What a token is guessed to take at the provider's meter, for providers do not say.

    Attributes:
        j_per_token_in, j_per_token_out: of prompt and output [J]; source: whose guess.
    """

    j_per_token_in: float
    j_per_token_out: float
    source: str

    def __post_init__(self) -> None:
        number("energy.j_per_token_in", self.j_per_token_in, _JOULES, above=0.0)
        number("energy.j_per_token_out", self.j_per_token_out, _JOULES, above=0.0)
        if not isinstance(self.source, str) or not self.source.strip():
            raise InputError("energy.source", self.source, "a text: an estimate names its source")


@dataclass(frozen=True, slots=True)
class ApiPool(AnyPool):
    """An API as a pool of a site. It has no replicas, no memory and no queue but the one that its limits make.

    Attributes:
        name: unique in the fleet.
        provider, model_id: who serves what; model: its entry where its weights are known, for its quality.
        price: None where it is unknown.
        ttft: time from a request at the pool's door to its first token there [s].
        tokens_per_s: output after that.
        max_tokens: longest prompt + output [tokens].
        max_concurrent: requests that the account may have under way; None for no limit. Others wait, first come first
            served.
        requests_per_minute: that may be sent, evenly spaced; None for no limit.
        cached_share: share of each prompt that the provider's cache is taken to hold, which changes the price alone.
        energy: an estimate; None leaves energy and carbon unknown.
        outages: (start, end) of each time at which it is out of service, in order [s].
        latency_kind: on what ground its latency stands, as kinds of constants.
    """

    name: str
    provider: str
    model_id: str
    price: ApiPrice | None
    ttft: Latency
    tokens_per_s: OutputRate
    max_tokens: int
    model: Model | None = None
    max_concurrent: int | None = None
    requests_per_minute: float | None = None
    cached_share: float = 0.0
    energy: EnergyEstimate | None = None
    outages: tuple[tuple[float, float], ...] = ()
    latency_kind: str = "given"
    # what whoever looks at all pools of a fleet may ask
    balancer: str | None = field(default=None, init=False)
    engine: EngineSettings = field(default_factory=EngineSettings, init=False)
    plan: None = field(default=None, init=False)

    def __post_init__(self) -> None:
        instance("pools.name", self.name, str, "a text")
        key = f"pools.{self.name}"
        for name in ("provider", "model_id"):
            instance(f"{key}.{name}", getattr(self, name), str, "a text")
        if self.price is not None:
            instance(f"{key}.price", self.price, ApiPrice, "an ApiPrice, or None where it is unknown")
        provider(f"{key}.ttft", self.ttft, ["draw"], "a latency such as LogNormal(0.5, 0.4) [s]")
        instance(f"{key}.tokens_per_s", self.tokens_per_s, OutputRate, "an OutputRate such as OutputRate(80.0)")
        whole(f"{key}.max_tokens", self.max_tokens, "a whole number of at least 2 tokens", low=2)
        if self.model is not None:
            instance(f"{key}.model", self.model, Model, "a Model, or None")
        if self.max_concurrent is not None:
            whole(f"{key}.max_concurrent", self.max_concurrent, "a whole number of at least 1, or None", low=1)
        if self.requests_per_minute is not None:
            number(f"{key}.requests_per_minute", self.requests_per_minute, "a rate > 0, or None", above=0.0)
        number(f"{key}.cached_share", self.cached_share, "a share in [0, 1]", low=0.0, high=1.0)
        if self.energy is not None:
            instance(f"{key}.energy", self.energy, EnergyEstimate, "an EnergyEstimate, or None")
        object.__setattr__(self, "outages", check_outages(f"{key}.outages", self.outages))

    @property
    def cost(self) -> ApiPrice | None:
        """Its price."""
        return self.price

    @property
    def served_quality(self) -> Mapping[str, float]:
        """Scores of the model's own; the provider's number format is not known."""
        return {} if self.model is None else self.model.quality


def check_no_api(key: str, pools: Iterable[AnyPool]) -> None:
    """Refuse APIs at a site with a plant of its own, behind whose meter they are not.

    Raises:
        InputError: there is one.
    """
    for pool in pools:
        if isinstance(pool, ApiPool):
            raise InputError(
                f"{key}.pools", pool.name, "no API beside on_site or power_budget; give it a site of its own"
            )

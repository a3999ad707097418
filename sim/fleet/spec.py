"""What a user builds: a `Fleet` of `Site`s with `Pool`s of replicas, and `Link`s. Plain data, checked at birth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sim.accounting.cost import CostModel
from sim.accounting.embodied import Embodied
from sim.accounting.grid import Market
from sim.accounting.on_site import OnSite
from sim.accounting.pue import LoadPue
from sim.accounting.signal import Signal, Unknown, kind_of
from sim.accounting.water import Water
from sim.errors import InputError, instance, instances, number, provider, whole
from sim.fleet.api import AnyPool, ApiPool, check_no_api
from sim.fleet.engine_settings import EngineSettings
from sim.fleet.link import CLIENT, Link
from sim.fleet.outages import check_outages
from sim.fleet.plan import Plan, check_plan
from sim.fleet.power_budget import PowerBudget
from sim.hardware.clock_law import ClockLaw
from sim.hardware.collectives import Interconnect
from sim.hardware.deployment import Deployment
from sim.hardware.model import Model
from sim.hardware.quality import effective_quality
from sim.hardware.speculation import drafting_model
from sim.hardware.timing import RooflineTiming, StepTiming
from sim.hardware.xpu import XPU
from sim.units import BYTES_PER_VALUE

SITE_KINDS = ("device", "edge", "cloud")
_COUNT = "a whole number of at least 1"
_EMBODIED = "embodied carbon such as act_of(xpu), or None where it is unknown"


@dataclass(frozen=True, slots=True)
class Host:
    """The server around the xPUs: its share per xPU.

    Attributes:
        power_w: host power per xPU, drawn while the replica is provisioned [W].
        embodied: embodied carbon of the host's share per xPU, or None where unknown.
        source: where the numbers come from.
    """

    power_w: float = 0.0
    embodied: Embodied | None = None
    source: str = ""

    def __post_init__(self) -> None:
        number("host.power_w", self.power_w, "a power >= 0 W", low=0.0)
        if self.embodied is not None:
            instance("host.embodied", self.embodied, Embodied, _EMBODIED)


@dataclass(frozen=True, slots=True)
class Pool(AnyPool):
    """Replicas of one (model, xPU, parallelism, engine settings).

    Attributes:
        name: unique in the fleet.
        model, xpu: what is served, and on what.
        replicas: engines in the pool; each occupies `tp` * `pp` xPUs. With `dp`, groups of so many engines each.
        tp: tensor-parallel degree; pp: stages of a pipeline (`sim.hardware.pipeline`).
        expert_parallel: True if each of the `tp` xPUs keeps whole experts instead of a part of each.
        dp: data-parallel ranks that share the experts of a replica and go in lock-step (`sim.serving.lockstep`).
        prefill_replicas: how many of the `replicas` compute prompts alone, for the others to decode; 0 if all do both.
        kv_link: what KV caches move over from the former to the latter.
        quality: scores by benchmark as served; None for the model's own, less what its number formats lose.
        draft: model that drafts, with ``engine.speculative_method`` draft_model; in the formats of `model`.
        interconnect: what joins the xPUs; None for what the xPU's entry has. With `node_xpus` xPUs a node, `internode`
            joins the nodes of a replica.
        precision: number format of the weights (a key of `units.BYTES_PER_VALUE`).
        kv_precision: number format of the KV cache; None follows the activations (2 bytes a value).
        engine: serving engine settings.
        host: share of the server per xPU, or None to leave the host outside the boundary.
        cost: rent or ownership, or None where cost is unknown.
        embodied: embodied carbon of one xPU, or None where unknown.
        embodied_shares: of rack, network and the like per xPU, by name; None for one that is unknown.
        boot_s: time the replicas take to load their weights at the start of the run [s]; they draw busy power without
            computing and serve nothing until then.
        timing: what makes the timing model of a replica; `RooflineTiming` or one's own `StepTiming`.
        outages: (start, end) of each time at which it is out of service, in order [s]. What it has then fails, and it
            starts empty; it draws idle power meanwhile.
        power_cap_w: power that each xPU may draw [W]; None for its own limit.
        clock_limit: highest clock that each xPU may run at, as a share of what it can do.
        clock_law: what lower clocks do to speed and power (`sim.hardware.clock`); needed with either.
        plan: how many of the replicas are provisioned, over time (`sim.fleet.plan`); None for all of them, always.
        balancer: how requests spread over replicas (`sim.fleet.balancers.BALANCERS`); None follows the router.
    """

    name: str
    model: Model
    xpu: XPU
    replicas: int = 1
    tp: int = 1
    precision: str = "bf16"
    kv_precision: str | None = None
    engine: EngineSettings = field(default_factory=EngineSettings)
    host: Host | None = None
    cost: CostModel | None = None
    embodied: Embodied | None = None
    boot_s: float = 0.0
    balancer: str | None = None
    timing: Callable[[Deployment], StepTiming] = RooflineTiming
    pp: int = 1
    expert_parallel: bool = False
    interconnect: Interconnect | None = None
    node_xpus: int | None = None
    internode: Interconnect | None = None
    draft: Model | None = None
    quality: Mapping[str, float] | None = None
    prefill_replicas: int = 0
    kv_link: Interconnect | None = None
    embodied_shares: Mapping[str, Embodied | None] = field(default_factory=dict)
    outages: tuple[tuple[float, float], ...] = ()
    dp: int = 1
    power_cap_w: float | None = None
    clock_limit: float = 1.0
    clock_law: ClockLaw | None = None
    plan: Plan | None = None

    def __post_init__(self) -> None:
        instance("pools.name", self.name, str, "a text")
        key = f"pools.{self.name}"
        instance(f"{key}.model", self.model, Model, "a Model, such as catalogue.model('llama_3_1_8b')")
        instance(f"{key}.xpu", self.xpu, XPU, "an XPU, such as catalogue.xpu('h100_sxm')")
        whole(f"{key}.replicas", self.replicas, _COUNT, low=1)
        whole(f"{key}.tp", self.tp, _COUNT, low=1)
        whole(f"{key}.pp", self.pp, _COUNT, low=1)
        instance(f"{key}.expert_parallel", self.expert_parallel, bool, "true | false")
        if self.node_xpus is not None:
            whole(f"{key}.node_xpus", self.node_xpus, f"{_COUNT}, or None for one node", low=1)
        for name in ("interconnect", "internode"):
            if getattr(self, name) is not None:
                instance(
                    f"{key}.{name}", getattr(self, name), Interconnect, "an Interconnect, or None for the xPU's own"
                )
        instance(f"{key}.precision", self.precision, str, " | ".join(BYTES_PER_VALUE))
        instance(f"{key}.engine", self.engine, EngineSettings, "EngineSettings(...)")
        number(f"{key}.boot_s", self.boot_s, "a time >= 0 s", low=0.0)
        object.__setattr__(self, "outages", check_outages(f"{key}.outages", self.outages))
        self._check_draft(key)
        self._check_handover(key)
        self._check_ranks(key)
        self._check_clock(key)
        check_plan(key, self)
        if self.host is not None:
            instance(f"{key}.host", self.host, Host, "a Host, or None to leave it out")
        if self.cost is not None:
            provider(f"{key}.cost", self.cost, ["rates"], "a cost model such as Rent(2.5), or None where it is unknown")
        if self.embodied is not None:
            instance(f"{key}.embodied", self.embodied, Embodied, _EMBODIED)
        for name, each in self.embodied_shares.items():
            if each is not None:
                instance(f"{key}.embodied_shares.{name}", each, Embodied, _EMBODIED)
        for name in ("kv_precision", "balancer"):
            if getattr(self, name) is not None:
                instance(f"{key}.{name}", getattr(self, name), str, "a text, or None")
        if not callable(self.timing):
            raise InputError(f"{key}.timing", self.timing, "a class or function that makes a timing model")

    def _check_draft(self, key: str) -> None:
        drafts = self.engine.speculative_tokens > 0
        wanted = drafts and self.engine.speculative_method == "draft_model"
        if self.draft is not None:
            instance(f"{key}.draft", self.draft, Model, "a Model, or None")
        if wanted != (self.draft is not None):
            accepted = "a model with engine.speculative_tokens and speculative_method draft_model, and only then"
            raise InputError(f"{key}.draft", self.draft and self.draft.id, accepted)
        if drafts and self.pp > 1:
            raise InputError(f"{key}.pp", self.pp, "1 with engine.speculative_tokens")

    def _check_handover(self, key: str) -> None:
        accepted = f"a whole number below replicas ({self.replicas}), so that some are left to decode"
        whole(f"{key}.prefill_replicas", self.prefill_replicas, accepted, low=0)
        if self.prefill_replicas >= self.replicas:
            raise InputError(f"{key}.prefill_replicas", self.prefill_replicas, accepted)
        if self.kv_link is not None:
            instance(f"{key}.kv_link", self.kv_link, Interconnect, "an Interconnect, or None")
        if (self.kv_link is None) == bool(self.prefill_replicas):
            accepted = "an interconnect with prefill_replicas, and only then"
            raise InputError(f"{key}.kv_link", self.kv_link and self.kv_link.id, accepted)
        engine = self.engine
        if self.prefill_replicas and (engine.detokenize_s or engine.batching != "chunked"):
            name = "detokenize_s" if engine.detokenize_s else "batching"
            accepted = "0 with prefill_replicas" if engine.detokenize_s else "chunked with prefill_replicas"
            raise InputError(f"{key}.engine.{name}", getattr(engine, name), accepted)

    def _check_ranks(self, key: str) -> None:
        whole(f"{key}.dp", self.dp, _COUNT, low=1)
        if self.dp == 1:
            return
        if not self.expert_parallel:
            accepted = "1 without expert_parallel: ranks that share no experts are replicas"
            raise InputError(f"{key}.dp", self.dp, accepted)
        for name, value in (("pp", self.pp - 1), ("prefill_replicas", self.prefill_replicas)):
            if value:
                raise InputError(f"{key}.dp", self.dp, f"1 with {name}")
        if self.engine.speculative_tokens:
            raise InputError(f"{key}.dp", self.dp, "1 with engine.speculative_tokens")

    def _check_clock(self, key: str) -> None:
        xpu = self.xpu
        accepted = (
            f"more than static_w ({xpu.power.static_w:g} W) and at most tdp_w ({xpu.tdp_w:g} W) of {xpu.id}, or null"
        )
        if self.power_cap_w is not None:
            number(f"{key}.power_cap_w", self.power_cap_w, accepted, above=xpu.power.static_w, high=xpu.tdp_w)
        law, limit = self.clock_law, self.clock_limit
        lowest = 0.0 if law is None else law.lowest
        number(
            f"{key}.clock_limit", limit, f"a share of the clock from {lowest:g} to 1", above=0.0, low=lowest, high=1.0
        )
        if law is None and (self.power_cap_w is not None or limit < 1.0):
            raise InputError(f"{key}.clock_law", None, "a ClockLaw, such as catalogue.clock_law('dvfs')")

    @property
    def drafting_model(self) -> Model | None:
        """The model, or layer, that drafts tokens; None if nobody does, or n-grams do."""
        engine = self.engine
        return drafting_model(engine.speculative_method, self.model, self.draft) if engine.speculative_tokens else None

    @property
    def frees_windows(self) -> bool:
        """Whether layers with a window give back the KV blocks that fell out of it; what else is set may need them.

        That is so with copies between replicas and to the host, reservation of whole lives and drafting models.
        """
        engine = self.engine
        needed = engine.disable_hybrid_kv_cache_manager or engine.batching != "chunked" or engine.swap_bytes > 0.0
        return self.model.keeps_windows and not needed and not self.prefill_replicas and self.drafting_model is None

    @property
    def served_quality(self) -> Mapping[str, float]:
        """Scores by benchmark in [0, 1]; unknown ones are absent."""
        if self.quality is not None:
            return self.quality
        return effective_quality(self.model, self.precision, self.kv_precision)

    @property
    def xpus_per_replica(self) -> int:
        """xPUs that each replica occupies."""
        return self.dp * self.xpus_per_engine

    @property
    def xpus_per_engine(self) -> int:
        """xPUs of one engine: of a replica, or of one of its data-parallel ranks."""
        return self.tp * self.pp

    @property
    def engines(self) -> int:
        """Engines in the pool, each with a queue and KV cache of its own: replicas, or all their ranks."""
        return self.replicas * self.dp

    def deployment(self) -> Deployment:
        """What one replica is."""
        return Deployment(
            self.model,
            self.xpu,
            self.tp,
            self.precision,
            self.kv_precision or "bf16",
            self.engine.sorted_sampling,
            self.pp,
            self.expert_parallel,
            self.interconnect,
            self.node_xpus,
            self.internode,
            self.engine.max_num_batched_tokens,
            self.engine.penalized_sampling,
            self.dp,
            self.power_cap_w,
            self.clock_limit,
            self.clock_law,
        )


@dataclass(frozen=True, slots=True)
class Site:
    """A place with one grid and one building: a device, an edge site or a cloud region.

    Attributes:
        name: unique in the fleet.
        kind: one of `SITE_KINDS`.
        pools: the pools that stand there, or that are reached there: APIs.
        intensity: carbon intensity of its electricity [g CO2e/kWh], over simulated time; unknown unless given.
        pue: power usage effectiveness, facility energy over IT energy, at least 1: a number, a signal over time (such
            as `ClockPue`), or a `LoadPue`.
        market: what electricity it buys, for a market-based figure; None leaves that "not available".
        water: its water factors; None leaves water unknown.
        on_site: its solar plant, battery and contract; None where there are none.
        power_budget: what its pools may draw; None for no limit but their own.
    """

    name: str
    kind: str
    pools: tuple[Pool | ApiPool, ...]
    intensity: Signal = field(default_factory=Unknown)
    pue: float | LoadPue | Signal = 1.0
    market: Market | None = None
    water: Water | None = None
    on_site: OnSite | None = None
    power_budget: PowerBudget | None = None

    def __post_init__(self) -> None:
        instance("sites.name", self.name, str, "a text")
        key = f"sites.{self.name}"
        object.__setattr__(self, "pools", instances(f"{key}.pools", self.pools, AnyPool, "a list of Pools"))
        if self.kind not in SITE_KINDS:
            raise InputError(f"{key}.kind", self.kind, " | ".join(SITE_KINDS))
        accepted = "a Signal such as Constant(400.0, basis='lca') [g CO2e/kWh]"
        provider(f"{key}.intensity", self.intensity, ["at", "next_change", "integral"], accepted)
        if not isinstance(self.pue, LoadPue) and not hasattr(self.pue, "next_change"):
            number(f"{key}.pue", self.pue, "a ratio of at least 1", low=1.0)
        if self.market is not None:
            instance(f"{key}.market", self.market, Market, "a Market, or None where it is unknown")
        if self.water is not None:
            instance(f"{key}.water", self.water, Water, "a Water, or None where it is unknown")
        if self.on_site is not None:
            instance(f"{key}.on_site", self.on_site, OnSite, "an OnSite, or None where there is none")
            check_no_api(key, self.pools)
        if self.power_budget is not None:
            instance(f"{key}.power_budget", self.power_budget, PowerBudget, "a PowerBudget, or None for none")
            check_no_api(key, self.pools)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All sites, and the links that join clients to them, and them to one another, one for each two places.

    A site without a client link is reached at no delay.
    """

    sites: tuple[Site, ...]
    links: tuple[Link, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", instances("fleet.sites", self.sites, Site, "a list of Sites"))
        object.__setattr__(self, "links", instances("fleet.links", self.links, Link, "a list of Links"))
        if not any(site.pools for site in self.sites):
            raise InputError("fleet.sites", [site.name for site in self.sites], "at least one site with one pool")
        _unique("fleet.sites", [site.name for site in self.sites])
        _unique("fleet.pools", [pool.name for pool in self.pools])
        _unique("fleet.links", [link.name for link in self.links])
        _unique("fleet.links", [" and ".join(sorted((link.source, link.target))) for link in self.links])
        names = [site.name for site in self.sites]
        for link in self.links:
            if link.target not in names:
                raise InputError(f"links.{link.name}.target", link.target, " | ".join(names))
            if link.source != CLIENT and link.source not in names:
                raise InputError(f"links.{link.name}.source", link.source, " | ".join([CLIENT, *names]))
        signals = [site.intensity for site in self.sites if site.pools]
        signals += [link.intensity for link in self.links if link.intensity is not None]
        bases = {signal.basis for signal in signals if signal.basis}
        if len(bases) > 1:
            raise InputError("grid basis", sorted(bases), "one basis for all sites of a run: lca or direct, not both")
        kinds = {kind_of(signal) for signal in signals if not isinstance(signal, Unknown)}
        if len(kinds) > 1:
            raise InputError("grid kind", sorted(kinds), "one kind for all sites of a run: average or marginal")

    @property
    def pools(self) -> tuple[Pool | ApiPool, ...]:
        """Every pool, in the order of the sites."""
        return tuple(pool for site in self.sites for pool in site.pools)


def _unique(key: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(key, twice, "names that occur once")

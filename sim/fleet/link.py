"""What a user builds of a network: a `Link` between clients and a site. Plain data, checked at birth."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sim.accounting.signal import Signal
from sim.errors import InputError, instance, number, provider, whole
from sim.fleet.latency import Latency, LogNormal
from sim.fleet.outages import check_outages

CLIENT = "client"  #: the place where requests are born: source of every client link


@dataclass(frozen=True, slots=True)
class Link:
    """A network link from `source` to `target` and back: clients and a site, or two sites.

    Attributes:
        name: unique in the fleet.
        source: `CLIENT` or a site's name.
        target: a site's name.
        latency_s: one-way latency, median [s].
        latency_sigma: sigma of the log-normal spread of the latency; 0 is constant.
        latency: another distribution of the one-way latency, instead of these two.
        up_bytes_per_s, down_bytes_per_s: capacity towards the target and back [bytes/s].
        shared: True if concurrent transfers of a direction share its capacity (processor sharing), False if each has it
            whole.
        cells: radio cells that clients are spread over at random; each has the whole capacity for those in it.
        grant_s, grant_period_s: what an upload waits for leave to send: a fixed time, and up to a period until it may
            ask for it [s].
        energy_j_per_byte: network energy, or None where unknown (then it is left out and reported as such).
        prompt_bytes_per_token: upload of a prompt [bytes/token]; about 4 characters of UTF-8 English.
        chunk_bytes: download of one streamed token [bytes]: a server-sent event with its JSON envelope.
        intensity: carbon intensity of its electricity [g CO2e/kWh]; None for that of the site that clients reach over
            it, or the mean of the two sites that it joins.
        medium: what it runs over, such as ``fixed`` or ``mobile``: for whoever fills in its energy.
        outages: (start, end) of each time at which it is down, in order [s]. What is under way then stalls, and goes on
            afterwards.
        source_note: where the numbers come from.
    """

    name: str
    source: str
    target: str
    latency_s: float = 0.0
    latency_sigma: float = 0.0
    up_bytes_per_s: float = math.inf
    down_bytes_per_s: float = math.inf
    shared: bool = False
    energy_j_per_byte: float | None = None
    prompt_bytes_per_token: float = 4.0
    chunk_bytes: float = 200.0
    outages: tuple[tuple[float, float], ...] = ()
    latency: Latency | None = None
    cells: int = 1
    grant_s: float = 0.0
    grant_period_s: float = 0.0
    medium: str = ""
    intensity: Signal | None = None
    source_note: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "source", "target"):
            instance(f"links.{name}", getattr(self, name), str, "a text")
        key = f"links.{self.name}"
        if self.source == self.target:
            raise InputError(f"{key}.target", self.target, "another place than its source")
        number(f"{key}.latency_s", self.latency_s, "a time >= 0 s", low=0.0)
        number(f"{key}.latency_sigma", self.latency_sigma, "a number >= 0", low=0.0)
        for name in ("up_bytes_per_s", "down_bytes_per_s"):
            if getattr(self, name) != math.inf:
                number(f"{key}.{name}", getattr(self, name), "a capacity > 0 bytes/s", above=0.0)
        if self.intensity is not None:
            accepted = "a Signal such as Constant(400.0, basis='lca') [g CO2e/kWh], or None"
            provider(f"{key}.intensity", self.intensity, ["at", "next_change", "integral"], accepted)
        instance(f"{key}.medium", self.medium, str, "a text")
        instance(f"{key}.shared", self.shared, bool, "true | false")
        for name in ("prompt_bytes_per_token", "chunk_bytes"):
            number(f"{key}.{name}", getattr(self, name), "a size >= 0 bytes", low=0.0)
        if self.energy_j_per_byte is not None:
            number(f"{key}.energy_j_per_byte", self.energy_j_per_byte, ">= 0 J/byte, or null", low=0.0)
        for name in ("grant_s", "grant_period_s"):
            number(f"{key}.{name}", getattr(self, name), "a time >= 0 s", low=0.0)
        whole(f"{key}.cells", self.cells, "a whole number of at least 1", low=1)
        if self.cells > 1 and not self.shared:
            raise InputError(
                f"{key}.cells", self.cells, f"1, or {key}.shared true, for a cell is what its clients share"
            )
        if self.latency is not None:
            provider(f"{key}.latency", self.latency, ["draw"], "a distribution such as Gamma(0.02, 0.5)")
            if self.latency_s or self.latency_sigma:
                raise InputError(f"{key}.latency", self.latency, "either this, or latency_s and latency_sigma")
        object.__setattr__(self, "outages", check_outages(f"{key}.outages", self.outages))

    @property
    def distribution(self) -> Latency | None:
        """What latencies are drawn from; None if all are `latency_s`."""
        if self.latency is None and self.latency_sigma:
            return LogNormal(self.latency_s, self.latency_sigma)
        return self.latency

    @property
    def median_latency_s(self) -> float:
        """Median one-way latency [s]."""
        return self.latency_s if self.latency is None else self.latency.median_s

    @property
    def mean_grant_s(self) -> float:
        """Mean wait of an upload for leave to send [s]."""
        return self.grant_s + 0.5 * self.grant_period_s

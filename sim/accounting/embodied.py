"""Embodied carbon of hardware: what making it emitted, by a named method, with a named boundary, over a lifetime.

Boundaries are never mixed: an interval's ends share one boundary, and sums say which boundaries they add.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sim.errors import InputError, number
from sim.hardware.xpu import XPU
from sim.units import GIB, SECONDS_PER_HOUR, SECONDS_PER_YEAR

BOUNDARIES = ("die+memory", "board", "server", "rack")
ESTIMATES = ("low", "central", "high")
BY_TIME, BY_USE = "time", "use"  #: amortised over provisioned or over active time

#: Logic by node [nm]: EPA, fab electricity [kWh/cm2]; GPA, process gases at 95 % and 99 % abatement [g CO2e/cm2];
#: MPA, materials [g CO2e/cm2].
#: Source: Gupta et al., "ACT: Designing Sustainable Computer Systems with an Architectural Carbon Modeling Tool",
#: ISCA 2022. Kind: published.
ACT_NODES: dict[float, tuple[float, float, float, float]] = {
    28: (0.90, 175.0, 100.0, 500.0),
    20: (1.20, 190.0, 110.0, 500.0),
    14: (1.20, 200.0, 125.0, 500.0),
    10: (1.475, 240.0, 150.0, 500.0),
    8: (1.52, 240.0, 150.0, 500.0),
    7: (2.15, 350.0, 200.0, 500.0),
    5: (2.75, 430.0, 225.0, 500.0),
    3: (3.25, 470.0, 275.0, 500.0),
}

#: Nodes that ACT does not list, and the one that stands in (a half-node of the same family). Kind: assumed.
NODE_STAND_INS: dict[float, float] = {12: 14, 4: 5}

#: Memory by the beginning of its type's name, longest first: low, central, high [g CO2e/GB].
#: Source: ACT (ISCA 2022) for DDR4 (10 nm class), LPDDR4, LPDDR3 (20 nm) and DDR3 (30 nm), kind published. ACT has no
#: HBM, GDDR, DDR5 or LPDDR5, so these are assumed: HBM from plain DDR4 dies, by 400 g/GB (what LLMCarbon takes for
#: DRAM), up to 860 g/GB; the others as DDR4 or LPDDR4.
MEMORY_G_PER_GB: dict[str, tuple[float, float, float]] = {
    "LPDDR5": (48.0, 48.0, 48.0),
    "LPDDR4": (48.0, 48.0, 48.0),
    "LPDDR3": (184.0, 184.0, 184.0),
    "GDDR": (65.0, 65.0, 65.0),
    "DDR5": (65.0, 65.0, 65.0),
    "DDR4": (65.0, 65.0, 65.0),
    "DDR3": (230.0, 230.0, 230.0),
    "HBM": (65.0, 400.0, 860.0),
}

#: Logic by node [nm]: carbon per area [kg CO2e/cm2], and memory [kg CO2e/GB].
#: Source: Faiz et al., LLMCarbon (ICLR 2024). Kind: published.
LLMCARBON_KG_PER_CM2: dict[float, float] = {12: 1.2, 7: 1.6, 4: 1.8}
LLMCARBON_KG_PER_GB = 0.4

ACT_FAB_G_PER_KWH = 583.0  #: electricity of the fab: Taiwan. Source: ACT (ISCA 2022).
ACT_YIELD = 0.875  #: share of good dies. Source: ACT (ISCA 2022).
ACT_PACKAGE_G = 150.0  #: packaging of one integrated circuit [g CO2e]. Source: ACT (ISCA 2022).
DEFAULT_LIFETIME_YEARS = 5.0  #: of 8,760 h. Kind: assumed.


@dataclass(frozen=True, slots=True)
class Embodied:
    """Embodied carbon of one unit of hardware, such as one xPU or its share of a host.

    Attributes:
        low_kg, central_kg, high_kg: interval and best estimate within one boundary [kg CO2e].
        boundary: what is counted, one of `BOUNDARIES`.
        method: how it was found, such as ``ACT`` or ``published``.
        lifetime_s: time over which it is spread, provisioned or active as `per` says [s].
        source: where the numbers come from.
        per: ``time`` spreads it over provisioned time, used or not; ``use`` over active time alone.
        share: part of it that this use carries, in [0, 1]: what a second life takes over, or its part of a use.
    """

    low_kg: float
    central_kg: float
    high_kg: float
    boundary: str
    method: str
    lifetime_s: float
    source: str
    per: str = BY_TIME
    share: float = 1.0

    def __post_init__(self) -> None:
        for key in ("low_kg", "central_kg", "high_kg"):
            number(f"embodied.{key}", getattr(self, key), "a mass >= 0 kg CO2e", low=0.0)
        if not self.low_kg <= self.central_kg <= self.high_kg:
            given = (self.low_kg, self.central_kg, self.high_kg)
            raise InputError("embodied.low_kg, central_kg, high_kg", given, "low <= central <= high")
        if self.boundary not in BOUNDARIES:
            raise InputError("embodied.boundary", self.boundary, " | ".join(BOUNDARIES))
        number("embodied.lifetime_s", self.lifetime_s, "a lifetime > 0 s", above=0.0)
        number("embodied.share", self.share, "a share in [0, 1]", low=0.0, high=1.0)
        if self.per not in (BY_TIME, BY_USE):
            raise InputError("embodied.per", self.per, f"{BY_TIME} | {BY_USE}")

    def g_per_s(self, which: str = "central") -> float:
        """Embodied carbon per second of provisioned or active time [g CO2e/s], at the `which` of `ESTIMATES`."""
        if which not in ESTIMATES:
            raise InputError("embodied estimate", which, " | ".join(ESTIMATES))
        kg: float = getattr(self, f"{which}_kg")
        return kg * 1000.0 * self.share / self.lifetime_s


def act(
    die_mm2: float,
    node_nm: float,
    memory_gb: float,
    memory_type: str,
    lifetime_years: float = DEFAULT_LIFETIME_YEARS,
    *,
    yield_: float = ACT_YIELD,
    fab_g_per_kwh: float = ACT_FAB_G_PER_KWH,
    packages: int = 1,
) -> Embodied:
    """Embodied carbon of a die and its memory by ACT; the interval comes from the memory factor alone.

        area * (CI_fab * EPA + GPA + MPA) / yield + packages * 0.15 kg + GB * memory factor

    with GPA the mean of the two abatement columns. A T4 is 9.67 kg, an RTX 6000 Ada 20.19 kg.

    Args:
        die_mm2: area of all dies [mm2].
        node_nm: manufacturing node [nm], one of `ACT_NODES` or `NODE_STAND_INS`.
        memory_gb: memory [GB, as it is sold].
        memory_type: such as HBM3, GDDR6 or LPDDR5.
        lifetime_years: years of 8,760 h.
        yield_: share of good dies, in (0, 1].
        fab_g_per_kwh: carbon intensity of the fab's electricity [g CO2e/kWh].
        packages: integrated circuits that are packaged.

    Raises:
        InputError: a value out of its range, or a node or memory type that has no factor.

    Source: Gupta et al., ACT, ISCA 2022.
    """
    area_cm2 = number("embodied.die_mm2", die_mm2, "an area > 0 mm2", above=0.0) / 100.0
    memory = number("embodied.memory_gb", memory_gb, "a size >= 0 GB", low=0.0)
    good = number("embodied.yield", yield_, "a share in (0, 1]", above=0.0, high=1.0)
    fab = number("embodied.fab_g_per_kwh", fab_g_per_kwh, "an intensity >= 0 g/kWh", low=0.0)
    count = number("embodied.packages", packages, "a count >= 0", low=0.0)
    epa, gpa_95, gpa_99, mpa = _node_factors(node_nm)
    logic_g = area_cm2 * (fab * epa + (gpa_95 + gpa_99) / 2.0 + mpa) / good + count * ACT_PACKAGE_G
    low, central, high = ((logic_g + memory * factor) / 1000.0 for factor in _memory_factors(memory_type))
    return Embodied(
        low,
        central,
        high,
        boundary="die+memory",
        method="ACT",
        lifetime_s=_lifetime_s(lifetime_years),
        source="ACT, Gupta et al., ISCA 2022",
    )


def act_of(xpu: XPU, lifetime_years: float = DEFAULT_LIFETIME_YEARS) -> Embodied | None:
    """Embodied carbon of an xPU by ACT, or None where its die area, node or memory type is unknown."""
    if xpu.die_mm2 is None or xpu.node_nm is None or xpu.memory_type is None:
        return None
    # Memory chips come in binary sizes, so the gigabyte of ACT's factors is taken as the binary one.
    return act(xpu.die_mm2, xpu.node_nm, xpu.memory_bytes / GIB, xpu.memory_type, lifetime_years)


def llmcarbon(
    die_mm2: float,
    node_nm: float,
    memory_gb: float,
    lifetime_years: float = DEFAULT_LIFETIME_YEARS,
) -> Embodied:
    """Embodied carbon of a die and its memory by LLMCarbon: area x carbon per area + GB x 0.4 kg.

    Args:
        die_mm2: area of all dies [mm2].
        node_nm: manufacturing node [nm], one of `LLMCARBON_KG_PER_CM2`.
        memory_gb: memory [GB].
        lifetime_years: years of 8,760 h.

    Source: Faiz et al., LLMCarbon, ICLR 2024.
    """
    area_cm2 = number("embodied.die_mm2", die_mm2, "an area > 0 mm2", above=0.0) / 100.0
    memory = number("embodied.memory_gb", memory_gb, "a size >= 0 GB", low=0.0)
    if isinstance(node_nm, bool) or not isinstance(node_nm, int | float) or node_nm not in LLMCARBON_KG_PER_CM2:
        raise InputError("embodied.node_nm", node_nm, f"one of {sorted(LLMCARBON_KG_PER_CM2)}, or another method")
    kg = area_cm2 * LLMCARBON_KG_PER_CM2[node_nm] + memory * LLMCARBON_KG_PER_GB
    life = _lifetime_s(lifetime_years)
    return Embodied(kg, kg, kg, "die+memory", "LLMCarbon", life, "LLMCarbon, Faiz et al., ICLR 2024")


def llmcarbon_of(xpu: XPU, lifetime_years: float = DEFAULT_LIFETIME_YEARS) -> Embodied | None:
    """Embodied carbon of an xPU by LLMCarbon; None where area or node is unknown, or it has no factor for the node."""
    if xpu.die_mm2 is None or xpu.node_nm not in LLMCARBON_KG_PER_CM2:
        return None
    return llmcarbon(xpu.die_mm2, xpu.node_nm, xpu.memory_bytes / GIB, lifetime_years)


def in_second_life(embodied: Embodied, years: float, share: float | None = None) -> Embodied:
    """The same hardware after its first life: `share` of its carbon, spread over the `years` that remain.

    Without a share it is years / (first life + years): every year carries the same. A share of 0 calls it sunk.
    """
    second_s = number("embodied.second_life.years", years, "a number of years > 0", above=0.0) * SECONDS_PER_YEAR
    carried = second_s / (embodied.lifetime_s + second_s) if share is None else share
    number("embodied.second_life.share", carried, "a share in [0, 1]", low=0.0, high=1.0)
    return replace(embodied, lifetime_s=second_s, share=embodied.share * carried)


def by_use(embodied: Embodied, active_hours: float) -> Embodied:
    """The same carbon, spread over `active_hours` of work in all: idle time carries none of it."""
    hours = number("embodied.active_hours", active_hours, "a number of hours > 0", above=0.0)
    return replace(embodied, lifetime_s=hours * SECONDS_PER_HOUR, per=BY_USE)


def shared_with_other_uses(embodied: Embodied, use_share: float) -> Embodied:
    """The part of a device's carbon that serving carries, where its owner also uses it otherwise."""
    number("embodied.use_share", use_share, "a share in [0, 1]", low=0.0, high=1.0)
    return replace(embodied, share=embodied.share * use_share)


def published(
    kg: float,
    boundary: str,
    source: str,
    lifetime_years: float = DEFAULT_LIFETIME_YEARS,
    *,
    low_kg: float | None = None,
    high_kg: float | None = None,
) -> Embodied:
    """Embodied carbon as somebody published it [kg CO2e]; without `low_kg` and `high_kg` the interval is a point."""
    central = number("embodied.kg", kg, "a mass >= 0 kg CO2e", low=0.0)
    return Embodied(
        central if low_kg is None else low_kg,
        central,
        central if high_kg is None else high_kg,
        boundary=boundary,
        method="published",
        lifetime_s=_lifetime_s(lifetime_years),
        source=source,
    )


def _lifetime_s(years: float) -> float:
    return number("embodied.lifetime_years", years, "a number of years > 0", above=0.0) * SECONDS_PER_YEAR


def _node_factors(node_nm: float) -> tuple[float, float, float, float]:
    factors = ACT_NODES.get(NODE_STAND_INS.get(node_nm, node_nm)) if isinstance(node_nm, int | float) else None
    if factors is None:
        known = sorted([*ACT_NODES, *NODE_STAND_INS])
        raise InputError("embodied.node_nm", node_nm, f"one of {known}, or a published value instead of ACT")
    return factors


def _memory_factors(memory_type: str) -> tuple[float, float, float]:
    name = memory_type.upper() if isinstance(memory_type, str) else ""
    for prefix, factors in MEMORY_G_PER_GB.items():
        if name.startswith(prefix):
            return factors
    accepted = f"a type that begins with {' | '.join(MEMORY_G_PER_GB)}, or a published value instead of ACT"
    raise InputError("embodied.memory_type", memory_type, accepted)

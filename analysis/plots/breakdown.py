"""Where energy, carbon and money go: stacked bars by part, one bar a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis.plots import style
from analysis.view import View

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Energy at the facility, carbon and cost over the whole run by part. Active: spent on completed work; wasted: on "
    "work that was lost; idle: provisioned and waiting; embodied: the run's share of making the hardware; "
    "on_site: what a site's own solar plant and battery take off the end of a bar, or add."
)
#: A part thinner than this share of the longest bar cannot be seen, and is not in the legend.
VISIBLE = 0.003
#: part -> (colour, hatch); hatches keep the parts apart in grey
PARTS = {
    "active": ("#0072B2", ""),
    "wasted": ("#D55E00", "xxxx"),
    "idle": ("#56B4E9", "////"),
    "boot": ("#F0E442", "...."),
    "network": ("#CC79A7", "----"),
    "embodied": ("#009E73", "\\\\\\\\"),
    "on_site": ("#999999", ""),
}


def draw(view: View, width: float = style.PAGE) -> Figure:
    """Three panels: energy, carbon, cost."""
    figure, axes = style.grid_of_panels(3, width, height=0.95 + 0.3 * max(2, len(view.pools)), columns=3)
    by_pool = view.summary["by_pool"]
    panels = (
        ("Energy", "Facility energy", {"Wh": 1e-3, "kWh": 1.0, "MWh": 1e3}, _energy),
        ("Carbon", "Carbon", {"g CO$_2$e": 1e-3, "kg CO$_2$e": 1.0, "t CO$_2$e": 1e3}, _carbon),
        ("Cost", "Cost", {"USD": 1.0, "kUSD": 1e3}, _cost),
    )
    legend: dict[str, Artist] = {}
    for panel, (title, quantity, units, read) in zip(axes, panels):
        panel.set_title(title)
        rows = {name: read(section) for name, section in by_pool.items()}
        legend |= _bars(panel, rows, quantity, units)
        if width > style.ONE_COLUMN and panel is not axes[0]:
            panel.tick_params(labelleft=False)  # pools are named once a row of panels
    style.legend_below(figure, list(legend.values()), list(legend))
    return figure


def _energy(section: dict[str, Any]) -> dict[str, float | None]:
    return dict(section["parts"]["energy_kwh"] or {"active": None})


def _carbon(section: dict[str, Any]) -> dict[str, float | None]:
    parts = dict(section["parts"]["carbon_operational_kg"] or {"active": None})
    return parts | {"embodied": section["carbon_kg"]["embodied"]}


def _cost(section: dict[str, Any]) -> dict[str, float | None]:
    return dict(section["parts"]["cost_usd"] or {"active": None})


def _bars(
    axes: Axes, rows: dict[str, dict[str, float | None]], quantity: str, units: dict[str, float]
) -> dict[str, Artist]:
    """One horizontal bar a pool; what is unknown is said beside the bar. Returns legend entries."""
    sums = {name: sum(value for value in parts.values() if value) for name, parts in rows.items()}
    most = max(sums.values(), default=0.0)
    unit, scale = max(
        ((name, scale) for name, scale in units.items() if most >= 2.0 * scale),
        key=lambda item: item[1],
        default=next(iter(units.items())),
    )
    entries: dict[str, Artist] = {}
    for place, parts in enumerate(rows.values()):
        left = longest = 0.0
        for part, value in sorted(parts.items(), key=lambda item: (item[1] or 0.0) < 0.0):  # what is saved, last
            if value:
                face, hatch = PARTS.get(part, ("#999999", ""))
                look = {"color": face, "hatch": hatch, "edgecolor": "white"}
                if value < 0.0:  # what it takes off shows through
                    look = {"color": "none", "hatch": "||||", "edgecolor": "#333333"}
                bar = axes.barh(place, value / scale, left=left, height=0.62, **look)
                longest = max(longest, left + max(value, 0.0) / scale)
                if abs(value) >= VISIBLE * most:
                    entries.setdefault(part, bar[0])
                left += value / scale
        unknown = _unknown(parts)
        axes.annotate(
            " + ".join(text for text in (f"{left:.3g}" if left or not unknown else "", unknown) if text),
            (longest, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=6.5,
        )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.margins(x=0.3 if not any(_unknown(parts) for parts in rows.values()) else 0.6)
    axes.use_sticky_edges = all((value or 0.0) >= 0.0 for parts in rows.values() for value in parts.values())
    axes.set_xlim(left=0.0)
    axes.set_xlabel(f"{quantity} [{unit}]")
    return entries


def _unknown(parts: dict[str, float | None]) -> str:
    """What a bar lacks: its embodied carbon, or everything."""
    if "embodied" in parts and parts["embodied"] is None:
        return "embodied unknown"
    return "unknown" if all(value is None for value in parts.values()) else ""

"""What all figures share: colours, lines, legends, time axes, and the number of points of a curve."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

#: Okabe & Ito (2008), told apart by readers with any common colour blindness; line styles repeat the distinction.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1, 1.2)),
    (0, (5, 1.5, 1, 1.5)),
    (0, (8, 2)),
    (0, (2, 1)),
    (0, (5, 1, 1, 1, 1, 1)),
)
ALL_STYLE: dict[str, Any] = {"color": "#000000", "linewidth": 0.9, "linestyle": "-"}
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "||||")
MAX_POINTS = 1000
#: Bins of a time series: more than that cannot be told apart in a column of print.
MAX_BINS = 200
ONE_COLUMN, PAGE = 3.5, 7.0


def house() -> AbstractContextManager[None]:
    """Context in which figures must be drawn and saved."""
    from matplotlib import style

    return style.context(str(resources.files("analysis") / "house.mplstyle"))


def save(figure: Figure, svg: Path, other: str = ".png") -> None:
    """Write a figure as SVG and in another format beside it. No dates: equal runs give equal files."""
    figure.savefig(svg, metadata={"Date": None})
    figure.set_layout_engine("none")  # its panels stay where they are: the layout is a third of the work
    figure.savefig(svg.with_suffix(other), metadata={"CreationDate": None} if other == ".pdf" else {})


def colour(index: int) -> str:
    """Colour of the pool, site or class `index`."""
    return COLOURS[index % len(COLOURS)]


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the line of the pool, site or class `index`."""
    return {"color": colour(index), "linestyle": DASHES[(index + index // len(COLOURS)) % len(DASHES)]}


def hatching(index: int) -> dict[str, Any]:
    """Hatch of the area of the pool `index`: tells areas apart where colours do not."""
    return {"hatch": HATCHES[index % len(HATCHES)], "edgecolor": "white", "linewidth": 0.0}


def grid_of_panels(panels: int, width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of `panels` axes, `columns` abreast on a page and one below the other in a column.

    Args:
        panels: how many.
        width: width of the figure [inch].
        height: height of one row [inch].
        columns: panels in a row on a page.
    """
    from matplotlib.figure import Figure

    abreast = columns if width > ONE_COLUMN + 0.5 else 1
    rows = -(-panels // abreast)
    figure = Figure(figsize=(width, height * rows + 0.3))
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.05, wspace=0.03, hspace=0.04)
    axes = figure.subplots(rows, abreast, squeeze=False).ravel().tolist()
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels]


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """One legend for all panels, below them."""
    longest = max((len(label) for label in labels), default=1)
    abreast = max(1, min(len(labels), int(figure.get_figwidth() * 72 / (4.2 * longest + 34))))
    figure.set_figheight(figure.get_figheight() + 0.15 * (-(-len(labels) // abreast) - 1))  # panels keep their height
    figure.legend(handles, labels, loc="outside lower center", ncols=abreast)


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """A unit in which a run's length is a number that reads well."""

    unit: str
    seconds: float

    @staticmethod
    def of(end_s: float) -> TimeAxis:
        """The unit for a run of `end_s` seconds."""
        for unit, seconds, least in (("d", 86400.0, 3.0), ("h", 3600.0, 3.0), ("min", 60.0, 3.0)):
            if end_s >= least * seconds:
                return TimeAxis(unit, seconds)
        return TimeAxis("s", 1.0)

    def label(self, axes: Axes, end_s: float) -> None:
        """Name and limit the time axis."""
        axes.set_xlabel(f"Time [{self.unit}]")
        axes.set_xlim(0.0, end_s / self.seconds)
        if self.unit in ("h", "min"):
            from matplotlib.ticker import MaxNLocator

            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 3, 6, 10]))


def shade_warmup(axes: Axes, warmup_s: float, time: TimeAxis) -> None:
    """Grey out the arrivals that do not count."""
    if warmup_s > 0.0:
        axes.axvspan(0.0, warmup_s / time.seconds, color="#efefef", linewidth=0, zorder=0)


def bin_edges(count: int, most: int = MAX_BINS) -> npt.NDArray[np.int64]:
    """Indices at which to cut `count` consecutive bins into at most `most` groups of almost equal size."""
    return np.unique(np.linspace(0, count, min(count, most) + 1).astype(np.int64))[:-1]


def cdf_levels(most: int = MAX_POINTS) -> Floats:
    """Probabilities in [0, 100] at which a distribution is drawn: even, and finer towards the tail."""
    tail = 100.0 - np.geomspace(1.0, 1e-3, most // 4)
    return np.unique(np.concatenate((np.linspace(0.0, 99.0, most - len(tail) - 1), tail, [100.0])))


def say_nothing_known(axes: Axes, text: str) -> None:
    """Fill a panel that has nothing to show with the reason."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#666666")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)

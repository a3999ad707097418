"""All figures of a run, for a page and for one column of print: vector and PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.load import Run
from analysis.view import view
from sim.results import Result

#: Names of the figures, in the order of a report.
NAMES = ("latency", "qoe", "breakdown", "power", "load")
SITES = "sites"  #: one more, of runs with sites that have a plant or a budget of their own


def write_figures(run: Result | Run, folder: Path, summary: dict[str, Any] | None = None) -> dict[str, Path]:
    """Draw every figure into `folder`: NAME.svg and .png 7 inches wide, NAME_column.svg and .pdf 3.5 inches wide.

    Args:
        run: a fresh result, or a run folder that was loaded.
        folder: made if it is not there.
        summary: the run's summary, if at hand.

    Returns:
        Path of each figure's page-wide SVG by name; its column-wide one lies beside it (`column_of`).
    """
    from importlib import import_module

    from analysis.plots import style

    folder.mkdir(parents=True, exist_ok=True)
    seen = view(run, summary)
    paths = {}
    with style.house():
        for name in (*NAMES, *([SITES] if seen.sites is not None else [])):
            draw = import_module(f"analysis.plots.{name}").draw
            paths[name] = folder / f"{name}.svg"
            style.save(draw(seen, style.PAGE), paths[name])
            style.save(draw(seen, style.ONE_COLUMN), column_of(paths[name]), ".pdf")
    return paths


def column_of(path: Path) -> Path:
    """The column-wide twin of a page-wide figure."""
    return path.with_stem(f"{path.stem}_column")


def captions() -> dict[str, str]:
    """What each figure shows, by name."""
    from importlib import import_module

    return {name: str(import_module(f"analysis.plots.{name}").CAPTION) for name in (*NAMES, SITES)}

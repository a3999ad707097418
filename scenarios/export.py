"""`hybridfleet export ghg RUN`: a run folder in the form of somebody else's books, as CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from analysis import ghg
from scenarios.listing import Parser
from sim.errors import InputError, number


def main(argv: Sequence[str]) -> int:
    """Write an inventory after the GHG Protocol's scopes to the terminal, or to a file that does not exist yet.

    Raises:
        InputError: no such form or run, or a share out of range.
    """
    parser = Parser("hybridfleet export", description=__doc__)
    parser.add_argument("form", help="ghg")
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--devices", action="store_true", help="count users' devices")
    parser.add_argument("--grid-losses", type=float, help="share of electricity lost on the way, such as 0.05")
    parser.add_argument("--out", type=Path, help="file to write; default: the terminal")
    arguments = parser.parse_args(list(argv))
    if arguments.form != "ghg":
        raise InputError("export", arguments.form, "ghg")
    losses: float | None = arguments.grid_losses
    if losses is not None and number("--grid-losses", losses, "a share in [0, 1)", low=0.0, high=1.0) == 1.0:
        raise InputError("--grid-losses", losses, "a share in [0, 1)")
    rows = ghg.rows(_summary(arguments.run), arguments.devices, losses)
    out: Path | None = arguments.out
    if out is None:
        _write(rows, sys.stdout)
        return 0
    try:
        with open(out, "x", newline="", encoding="utf-8") as file:
            _write(rows, file)
    except OSError as error:
        raise InputError("--out", str(out), f"a file that can be made ({error.strerror})") from None
    return 0


def _write(rows: Sequence[ghg.Row], file: IO[str]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["scope", "category", "method", "what", "kg_co2e", "note"])
    for row in rows:
        kg = ghg.NOT_AVAILABLE if row.kg is None else f"{row.kg:.9g}"
        writer.writerow([row.scope, row.category, row.method, row.what, kg, row.note])


def _summary(folder: Path) -> dict[str, object]:
    path = folder / "summary.json"
    try:
        found: dict[str, object] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise InputError("run", str(folder), "a run folder with its summary.json") from None
    pools = found.get("by_pool")
    if not isinstance(pools, dict) or not all("ownership" in pool for pool in pools.values()):
        raise InputError("run", str(folder), "a run of this version, which says who owns each pool: run it again")
    if any(pool["intensity_kind"] == "marginal" for pool in pools.values()):
        raise InputError("run", str(folder), "a run on average intensities: marginal ones make no inventory")
    return found

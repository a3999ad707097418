"""A power log beside the model: tables, notes and JSON."""

from __future__ import annotations

import math

from analysis.agreement import Section, pair_cells, share
from scenarios.power_compare import PowerOverTime
from scenarios.validation_tables import Table

_LABELS = {"gpu": "GPUs", "server": "server", "": "all", "_busy": "busy", "_idle": "idle"}
_BIN_S = 10  #: of the second table [s]


def power_table(done: PowerOverTime) -> Table:
    """A row for the GPUs and one for the server, over all, busy and idle seconds."""
    headings = ["power [W]", "seconds", "measured", "simulated", "error", "mean abs. error", "by second"]
    cells = []
    for key, section in done.sections().items():
        name, _, part = key.partition("_")
        label = f"{_LABELS[name]}, {_LABELS['_' + part if part else '']} {section['seconds']} s"
        errors = (section["mean_absolute_error"], section["mean_absolute_error_by_second"])
        cells.append([label, str(section["seconds"]), *pair_cells(section), *map(share, errors)])
    return headings, cells, 1


def series_table(done: PowerOverTime) -> Table:
    """Means over every ten seconds."""
    headings = ["from [s]", "busy", "GPUs [W]", "simulated", "error", "server [W]", "simulated", "error"]
    cells = []
    for start in range(0, len(done.gpu_w), _BIN_S):
        part = slice(start, start + _BIN_S)
        row = [str(start), share(float(done.busy[part].mean()))]
        row += pair_cells(_beside(done.log.gpu_w[part].mean(), done.gpu_w[part].mean()))
        measured = None if done.log.server_w is None else float(done.log.server_w[part].mean())
        simulated = None if done.host_w is None else float(done.gpu_w[part].mean()) + done.host_w
        both = measured is not None and simulated is not None and math.isfinite(measured)
        cells.append([*row, *pair_cells(_beside(measured or 0.0, simulated or 0.0) if both else None)])
    return headings, cells, 1


def _beside(measured: float, simulated: float) -> Section:
    return {"measured": float(measured), "simulated": float(simulated), "error": simulated / measured - 1.0}


def power_notes(done: PowerOverTime) -> list[str]:
    """What a reader of the numbers must know."""
    host = "no entry of a host to compare the server with; host=ID names one"
    if done.host is not None:
        host = f"the server is the GPUs and {done.host_w:.0f} W of {done.host}, busy or not"
    return [
        f"{done.log.name}: {done.pool.model.id} on {done.pool.tp} x {done.pool.xpu.id}; {host}.",
        "Simulated from the tokens that the engine's log counts in each interval; clocks are set by the first rise of "
        "power. By second: mean of the relative errors of all seconds, those in which work begins or ends included.",
    ]


def power_json(done: PowerOverTime) -> Section:
    """Errors, and every second."""
    server = done.log.server_w
    return {
        "model": done.pool.model.id,
        "xpu": done.pool.xpu.id,
        "host": done.host,
        **done.sections(),
        "series": [
            {
                "second_s": float(second),
                "busy": float(done.busy[index]),
                "gpu_measured_w": float(done.log.gpu_w[index]),
                "gpu_simulated_w": float(done.gpu_w[index]),
                "server_measured_w": None if server is None or math.isnan(server[index]) else float(server[index]),
                "server_simulated_w": None if done.host_w is None else float(done.gpu_w[index]) + done.host_w,
            }
            for index, second in enumerate(done.log.second_s)
        ],
    }

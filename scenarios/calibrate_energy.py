"""`hybridfleet calibrate energy=` and `power=`: power coefficients of xPUs, or overheads of a serving stack.

Every group left out, a model or an xPU, is compared with coefficients that were fitted to the others alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scenarios.energy import pool_for
from scenarios.energy_fit import POWER, STACK, EnergySource, Sample, determinable, left_out, summary
from scenarios.energy_table import read_energy
from scenarios.fitting import Fit, Source, fit
from scenarios.power_compare import PowerSource, idle_constants, pool_of_log
from scenarios.power_log import read_power_log
from scenarios.schema import integer
from sim.errors import InputError
from sim.hardware.xpu import XPU

GROUPS = ("model", "xpu")
Errors = dict[str, dict[str, dict[str, dict[str, float]]]]


@dataclass(frozen=True, slots=True)
class Fitted:
    """One new entry: its group and what it starts from, the fit, and errors by source, share, moment and metric.

    `constants` were read off, not fitted.
    """

    group: str
    name: str
    fit: Fit
    errors: Errors
    sources: list[str]
    constants: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Files:
    """Measurements: cases of energy tables, and power logs, with the names of files that they come from."""

    samples: list[Sample]
    logs: list[PowerSource]
    names: list[str]


def read_files(
    energies: Sequence[Path],
    powers: Sequence[Path],
    values: Mapping[str, Any],
    given: Mapping[str, Any],
    search: Sequence[Path] = (),
) -> Files:
    """Read tables of energies and folders of power logs; suspected cases are not taken.

    Args:
        energies, powers: the files and folders.
        values: the command line's keys: `prompt`, and ``columns.FIELD``.
        given: the user's own keys of the pools.
        search: further folders of the catalogue.
    """
    prompt = values.get("prompt")
    columns = {key[8:]: str(value) for key, value in values.items() if key.startswith("columns.")}
    samples: list[Sample] = []
    for path in energies:
        table = read_energy(path, given, columns, None if prompt is None else integer(1)("prompt", prompt), search)
        suspected = table.suspected()
        for case, measure in table.means().items():
            if case not in suspected:
                samples.append(Sample(case, measure, pool_for(case, given, search)))
    logs = []
    for path in powers:
        log = read_power_log(path)
        logs.append(PowerSource(log.name, log, pool_of_log(log, given, search)))
    return Files(samples, logs, [path.name for path in (*energies, *powers)])


def fit_power(files: Files, by: str) -> list[Fitted]:
    """Power coefficients of every xPU in the files, one entry each."""
    chips: dict[str, XPU] = {}
    for pool in (*(each.pool for each in files.samples), *(each.pool for each in files.logs)):
        chips.setdefault(pool.xpu.id, pool.xpu)
    found = []
    for name, chip in chips.items():
        samples = [each for each in files.samples if each.pool.xpu.id == name]
        sources: list[Source] = [each for each in files.logs if each.pool.xpu.id == name]
        if samples:
            sources.append(EnergySource(f"energy on {name}", samples))
        # a log that is busy or idle does not tell static power from the rest
        fitted = fit(chip, sources, determinable(samples, POWER) if samples else POWER[1:])
        errors: Errors = {}
        for source in sources:
            errors[source.name] = {
                "fitted": {"before": source.errors(chip, False), "after": source.errors(fitted.xpu, False)}
            }
        others = samples if by == "model" else files.samples
        if samples:
            errors[f"energy on {name}"] |= _held_out(others, samples, by, "power", POWER, chip)
        idle = {key: value for log in files.logs if log in sources for key, value in idle_of(log).items()}
        found.append(Fitted("xpu", name, fitted, errors, files.names, idle))
    return found


def idle_of(log: PowerSource) -> dict[str, float]:
    """Idle power as a log shows it."""
    return idle_constants(log.log, log.pool)


def fit_stack(files: Files, by: str, name: str) -> Fitted:
    """Overheads of a serving stack, the same for all models and xPUs of the files."""
    samples = [each for each in files.samples if not np.isnan(each.measure.token_s)]
    if not samples:
        raise InputError("energy", ", ".join(files.names), "a table with tokens_per_s, step_ms or step_s")
    chip = samples[0].pool.xpu
    source = EnergySource("time a token", samples, "stack")
    fitted = fit(chip, [source], STACK)
    errors = {
        source.name: {"fitted": {"before": source.errors(chip, False), "after": source.errors(fitted.xpu, False)}}
    }
    errors[source.name] |= _held_out(samples, samples, by, "stack", STACK, chip)
    return Fitted("stack", name, fitted, errors, files.names)


def _held_out(
    pool: Sequence[Sample], samples: Sequence[Sample], by: str, what: str, names: Sequence[str], chip: XPU
) -> dict[str, dict[str, dict[str, float]]]:
    """Errors of samples with coefficients fitted to the rest of the pool, group by group; none of one group alone."""

    def group(sample: Sample) -> str:
        return str(getattr(sample.case, by))

    wanted = {group(each) for each in samples}
    if len({group(each) for each in pool}) < 2:
        return {}
    errors = left_out(pool, group, what, names, wanted)
    metric = "J/token" if what == "power" else "time a token"
    after = {f"{metric}, {key}": value for key, value in summary(errors).items()}
    return {f"{by}s left out": {"before": EnergySource("", samples, what).errors(chip, False), "after": after}}

"""``hybridfleet calibrate``: fit the coefficients of an xPU to measurements of a real engine.

measured=DIR    a measured run, as `hybridfleet validate` takes it; may be given several times
kernels=DIR     kernel times: dense.csv, per_sequence.csv, attention.csv and meta.yaml
xpu=ID          the entry to start from; default: the one that the runs were measured on
out=DIR         where the fitted entry goes, as DIR/xpu/ID_calibrated.yaml; default: calibrated
held_out=0.25   share of the requests and of the kernel steps that is not fitted, but compared; seed=0 draws it
energy=CSV      joules of full batches, as `hybridfleet validate` takes them; may be given several times, each xPU in
                them gets an entry with power coefficients of its own. columns.FIELD=NAME and prompt as there
power=DIR       watts of GPUs over time, as `hybridfleet validate` takes them, alone or beside energy=
loo=model       what is left out in turn to see how a fit carries over: model, or xpu
fit=power       what is fitted to energy: power, or stack for the overheads of their serving stack, from their pace
engine.NAME=..  settings of the runs that their records do not tell, or tell wrong; also model, tp, precision

Fits levels: of times efficiencies, overheads and links, of power the four terms of its law. Curves, tiles and skew stay
those of the entry. The result is an entry of your own: `hybridfleet run --config-dir DIR ... xpu=ID_calibrated`.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scenarios.deployment import POOL_KEYS, pool_of
from scenarios.entry_file import unit_of, write_entry
from scenarios.schema import integer, nearest, number, one_of
from scenarios.settings import arguments_of, is_known, pairs, plain_value
from sim.errors import InputError
from sim.hardware import catalogue
from sim.hardware.xpu import XPU

if TYPE_CHECKING:
    from scenarios.fitting import Fit, Source

_REPEATED = ("measured", "kernels", "energy", "power")
_TIMED = ("held_out", "seed")
_POWERED = ("columns.", "prompt", "loo", "fit")
_OTHERS = (*POOL_KEYS, "engine.", "out", *_TIMED, *_POWERED)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for.

    Attributes:
        measured, kernels: folders to fit timing to.
        energy, power: files and folders to fit power to.
        values: the other keys; numbers, booleans and lists are read as such.
        search: further folders of the catalogue.
        as_json: print nothing but JSON.
    """

    measured: tuple[Path, ...]
    kernels: tuple[Path, ...]
    energy: tuple[Path, ...]
    power: tuple[Path, ...]
    values: Mapping[str, Any]
    search: tuple[Path, ...]
    as_json: bool

    @property
    def pool(self) -> dict[str, Any]:
        """What replaces the pools that records describe."""
        return {key: value for key, value in self.values.items() if key in POOL_KEYS or key.startswith("engine.")}


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status.

    Raises:
        InputError: something on the command line or in a file cannot be used.
    """
    asked = _read(argv)
    if asked.energy or asked.power:
        return _to_power(asked)
    share = number("a share in [0, 0.9]", low=0.0, high=0.9)("held_out", asked.values.get("held_out", 0.25))
    seed = integer()("seed", asked.values.get("seed", 0))
    out = Path(str(asked.values.get("out", "calibrated"))).expanduser()
    name, sources = _sources(asked, share, seed)
    target = out / "xpu" / f"{name}_calibrated.yaml"
    if target.exists():
        raise InputError("out", str(target), "a file that does not exist yet")
    start = catalogue.xpu(name, asked.search)

    from scenarios.fitting import fit

    fitted = fit(start, sources)
    errors = _errors(start, fitted, sources, share > 0.0)
    write_entry(target, name, fitted, [source.name for source in sources], asked.search)
    if asked.as_json:
        json.dump(_as_json(fitted, errors), sys.stdout, indent=2, allow_nan=False)
        print()
    else:
        _print(fitted, errors)
        print(f"Entry: {target}; use it with --config-dir {out} and xpu={target.stem}")
    return 0


def _to_power(asked: Asked) -> int:
    """Fit to energy and power."""
    from scenarios.calibrate_energy import GROUPS, fit_power, fit_stack, read_files

    by = one_of(*GROUPS)("loo", asked.values.get("loo", "model"))
    what = one_of("power", "stack")("fit", asked.values.get("fit", "power"))
    out = Path(str(asked.values.get("out", "calibrated"))).expanduser()
    files = read_files(asked.energy, asked.power, asked.values, asked.pool, asked.search)
    results = (
        [fit_stack(files, by, str(asked.values.get("stack", "vllm_v1")))] if what == "stack" else fit_power(files, by)
    )
    targets = [out / each.group / f"{each.name}_calibrated.yaml" for each in results]
    for target in targets:
        if target.exists():
            raise InputError("out", str(target), "a file that does not exist yet")
    for each, target in zip(results, targets):
        write_entry(target, each.name, each.fit, each.sources, asked.search, each.group, each.constants)
    if asked.as_json:
        found = {each.name: {**_as_json(each.fit, each.errors), "constants": each.constants} for each in results}
        json.dump(found, sys.stdout, indent=2, allow_nan=False)
        print()
        return 0
    for each, target in zip(results, targets):
        print(f"{each.group} {each.name}")
        _print(each.fit, each.errors)
        if each.constants:
            print("Read off: " + ", ".join(f"{key} {value:.4g}" for key, value in each.constants.items()))
        print(f"Entry: {target}; use it with --config-dir {out} and {each.group}={target.stem}")
    return 0


def _read(argv: Sequence[str]) -> Asked:
    """The command line, checked as far as that goes without opening a file."""
    arguments = arguments_of("calibrate", __doc__, "see above", argv)
    folders: dict[str, list[Path]] = {key: [] for key in _REPEATED}
    values: dict[str, Any] = {}
    for key, text in pairs(arguments.settings, _REPEATED):
        if key in folders:
            folders[key].append(Path(text).expanduser())
        elif is_known(key, _OTHERS):
            values[key] = plain_value(text)
        else:
            known = (*_REPEATED, *_OTHERS)
            raise InputError(key, text, f"{nearest(key, known)}{', '.join(known)}")
    if not any(folders.values()):
        raise InputError(
            "arguments", " ".join(argv), "measured=DIR, kernels=DIR, energy=CSV or power=DIR, or several of them"
        )
    if (folders["measured"] or folders["kernels"]) and (folders["energy"] or folders["power"]):
        raise InputError(
            "arguments", " ".join(argv), "measured= and kernels=, or energy= and power=: one kind at a time"
        )
    others = _TIMED if folders["energy"] or folders["power"] else _POWERED
    for key in values:
        if is_known(key, others):
            raise InputError(key, values[key], f"nothing: {key} does not go with these measurements")
    measured, kernels, energy, power = (tuple(folders[key]) for key in _REPEATED)
    return Asked(measured, kernels, energy, power, values, tuple(arguments.config_dir), arguments.json)


def _sources(asked: Asked, share: float, seed: int) -> tuple[str, list[Source]]:
    """Name of the xPU that everything was measured on, and the measurements."""
    from scenarios.measured_sources import RunSource, read_kernels
    from scenarios.replay import read

    rng = np.random.default_rng(seed)
    sources: list[Source] = []
    names: dict[str, str] = {}
    for path in asked.measured:
        record = read(path, asked.pool, search=asked.search)
        for key in ("model", "xpu"):
            if key not in record.stated and key not in asked.pool:
                raise InputError(key, None, f"{key}=ID beside the record, which does not name it", record.where)
        pool = pool_of(record.stated, asked.pool, asked.search, record.where)
        names[pool.xpu.id] = record.name
        sources.append(RunSource(record.name, record, pool, rng.random(len(record.e2e_s)) < share))
    sources += [read_kernels(path, share, rng, asked.search) for path in asked.kernels]
    if len(names) > 1:
        told = ", ".join(f"{record} on {xpu}" for xpu, record in names.items())
        raise InputError("measured", told, "runs on one xPU: coefficients belong to it")
    if "xpu" in asked.values:
        return str(asked.values["xpu"]), sources
    if not names:
        raise InputError("xpu", None, "xpu=ID beside kernels, which do not name it")
    return next(iter(names)), sources


Errors = dict[str, dict[str, dict[str, dict[str, float]]]]


def _errors(start: XPU, fitted: Fit, sources: Sequence[Source], held_out: bool) -> Errors:
    """Errors by source, share, moment and metric."""
    return {
        source.name: {
            part: {moment: source.errors(xpu, part == "held out") for moment, xpu in moments}
            for part in ("fitted", "held out")[: 1 + held_out]
        }
        for source in sources
        for moments in [(("before", start), ("after", fitted.xpu))]
    }


def _print(fitted: Fit, errors: Errors) -> None:
    from analysis.agreement import print_table

    rows = []
    for each in fitted.coefficients:
        unit, factor = unit_of(each.name)
        error = "no effect" if math.isinf(each.error) else f"{each.error:.1%}" if each.error < 10.0 else "> 1000%"
        note = "" if each.determined else "not determined by these data; kept"
        note = "at its bound" if each.at_bound else note
        rows.append([each.name, unit, note, f"{each.before / factor:.4g}", f"{each.after / factor:.4g}", error])
    print_table(["coefficient", "unit", "", "before", "after", "standard error"], rows, 3)
    rows = [
        [source, part, metric, f"{before:+.1%}", f"{moments['after'][metric]:+.1%}"]
        for source, parts in errors.items()
        for part, moments in parts.items()
        for metric, before in moments["before"].items()
    ]
    print_table(["source", "share", "error of", "before", "after"], rows, 3)
    print("Standard errors take residuals for independent, which those of one run are not: read them as lower bounds.")


def _as_json(fitted: Fit, errors: Errors) -> dict[str, Any]:
    """All of it, numbers in SI units; what is not a number is null."""
    from analysis.metrics import plain

    coefficients = {
        each.name: {
            "before": each.before,
            "after": each.after,
            "standard_error": each.error if math.isfinite(each.error) else None,
            "determined": each.determined,
            "at_bound": each.at_bound,
        }
        for each in fitted.coefficients
    }
    return {"coefficients": coefficients, "errors": plain(errors)}

"""``hybridfleet validate``: how far the simulator is from what was measured on real engines.

measured=DIR    a run of which every request is known: a folder with requests.jsonl and meta.json, the JSON that
                vLLM's serving benchmark saves with --save-result --save-detailed, or a CSV (columns.FIELD=NAME);
                where rows of requests.jsonl have input_tok_ids, prompts share the beginnings that they have in common
aggregates=CSV  runs known by their mean E2E, ITL and TTFT
energy=CSV      joules per request or token, or power, of full batches (columns.FIELD=NAME); at the pace that the file
                measured, or with pace=simulated; or power of single kernels by their latency
training=ID     published training runs beside what their own inputs give; all for every run
power=DIR       watts of GPUs and server over time, beside the log of their vLLM server; host=ID names the server
document=FILE   all of them, of a data folder (data=DIR), as one Markdown document; with claims=STUDY, published claims
                that a study tests as well
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenarios import cli
from scenarios.schema import integer, nearest, one_of
from scenarios.settings import arguments_of, is_known, pairs, plain_value, unused_folder
from sim.errors import InputError

if TYPE_CHECKING:
    from scenarios.replay import Replay

_POOL = ("xpu", "model", "tp", "precision", "kv_precision", "stack")
#: mode -> the keys that go with it; those that end in a dot have names below them
_KEYS = {
    "measured": (*_POOL, "draft", "engine.", "columns.", "time_unit", "out"),
    "aggregates": (*_POOL, "engine.", "arrivals", "seed"),
    "energy": (*_POOL, "engine.", "columns.", "prompt", "pace"),
    "power": (*_POOL, "engine.", "host"),
    "training": (),
    "document": ("data", "claims"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for.

    Attributes:
        mode, path: one of `_KEYS` and the file or folder it names.
        values: the other keys; numbers, booleans and lists are read as such.
        texts: the same as they were typed.
        search: further folders of the catalogue.
        as_json: print nothing but JSON.
    """

    mode: str
    path: Path
    values: Mapping[str, Any]
    texts: Mapping[str, str]
    search: tuple[Path, ...]
    as_json: bool

    @property
    def pool(self) -> dict[str, Any]:
        """What replaces the pool that a record describes."""
        return {
            key: value for key, value in self.values.items() if key in (*_POOL, "draft") or key.startswith("engine.")
        }

    @property
    def columns(self) -> dict[str, str]:
        """Column by field."""
        return {key[8:]: text for key, text in self.texts.items() if key.startswith("columns.")}


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status.

    Raises:
        InputError: something on the command line or in a file cannot be used.
    """
    asked = _read(argv)
    modes: dict[str, Callable[[Asked], None]] = {
        "measured": _measured,
        "aggregates": _aggregates,
        "energy": _energy,
        "power": _power,
        "training": _training,
        "document": _document,
    }
    modes[asked.mode](asked)
    return 0


def _read(argv: Sequence[str]) -> Asked:
    """The command line, checked as far as that goes without opening a file."""
    arguments = arguments_of("validate", __doc__, "one of those above, and its settings", argv)
    texts = dict(pairs(arguments.settings))
    modes = [key for key in texts if key in _KEYS]
    if len(modes) != 1:
        raise InputError("arguments", " ".join(argv), "one of " + ", ".join(f"{mode}=..." for mode in _KEYS))
    mode = modes[0]
    path = Path(texts.pop(mode)).expanduser()
    for key in texts:
        if not is_known(key, _KEYS[mode]):
            accepted = ", ".join(known + "*" * known.endswith(".") for known in _KEYS[mode])
            raise InputError(key, texts[key], f"{nearest(key, _KEYS[mode])}keys that go with {mode}: {accepted}")
    values = {key: plain_value(text) for key, text in texts.items()}
    return Asked(mode, path, values, texts, tuple(arguments.config_dir), arguments.json)


# -- one run, request by request --------------------------------------------------------------------------------------


def _measured(asked: Asked) -> None:
    from scenarios.replay import read, replay
    from scenarios.store import check_out

    out = _out(asked)
    if out is not None:
        check_out(out)
    unit = asked.texts.get("time_unit", "s")
    record = read(asked.path, asked.pool, asked.columns, unit, asked.search)
    done = replay(record, asked.pool, asked.search)
    if asked.as_json:
        _print_json(done.agreement)
    else:
        _print_run(done)
    if out is not None:
        _write(done, out)
        if not asked.as_json:
            print(f"Figure: {out / 'agreement.png'}")


def _out(asked: Asked) -> Path | None:
    """Where the figure goes: `out`, else a folder by name and time; nowhere if only JSON is wanted."""
    if "out" in asked.texts:
        return Path(asked.texts["out"])
    if asked.as_json:
        return None
    stem = asked.path.resolve().name if asked.path.is_dir() else asked.path.stem
    return unused_folder(f"validate-{stem}", datetime.now(UTC))


def _print_run(done: Replay) -> None:
    from analysis.agreement import print_table, run_cells

    for line in done.describe():
        print(line)
    print_table(["metric", "", "measured", "simulated", "error"], run_cells(done.agreement, done.tokens_per_s), 2)


def _write(done: Replay, out: Path) -> None:
    """The figure and the numbers, in a folder that appears when it is whole."""
    from analysis.metrics import plain
    from analysis.plots.agreement import write
    from scenarios.store import whole_or_nothing

    try:
        with whole_or_nothing(out) as folder:
            content = json.dumps(plain(done.agreement), indent=2, allow_nan=False)
            (folder / "agreement.json").write_text(content + "\n", encoding="utf-8")
            write(folder, done.measured, done.simulated, done.lines)
    except OSError as error:
        raise InputError("out", str(out), f"a folder that can be written ({error.strerror or error})") from error


# -- many runs --------------------------------------------------------------------------------------------------------


def _aggregates(asked: Asked) -> None:
    from analysis.agreement import print_table
    from scenarios import aggregates, validation_tables

    rows = aggregates.compare_aggregates(
        asked.path,
        asked.pool,
        asked.texts.get("arrivals", "poisson"),
        integer()("seed", asked.values.get("seed", 0)),
        asked.search,
    )
    if asked.as_json:
        _print_json(validation_tables.aggregates_json(rows))
        return
    print_table(*validation_tables.aggregates_table(rows))
    print("\n".join(validation_tables.aggregates_notes()))


def _energy(asked: Asked) -> None:
    from analysis.agreement import print_table
    from scenarios import energy, kernel_power, validation_tables

    if kernel_power.is_kernels(asked.path, asked.columns):
        table = kernel_power.read_kernel_power(asked.path, asked.columns, asked.search)
        if asked.as_json:
            _print_json(validation_tables.kernel_json(table))
            return
        print_table(*validation_tables.kernel_table(table))
        print("\n".join(validation_tables.kernel_notes(table)))
        return
    prompt = asked.values.get("prompt")
    done = energy.compare_energy(
        asked.path,
        asked.pool,
        asked.columns,
        None if prompt is None else integer(1)("prompt", prompt),
        asked.search,
        one_of(*energy.PACES)("pace", asked.texts.get("pace", energy.PACES[0])),
    )
    if asked.as_json:
        _print_json(validation_tables.energy_json(done))
        return
    print_table(*validation_tables.energy_table(done))
    print("\n".join(validation_tables.energy_notes(done)))


def _power(asked: Asked) -> None:
    from analysis.agreement import print_table
    from scenarios import power_compare, power_tables

    done = power_compare.compare_power(asked.path, asked.pool, asked.texts.get("host"), asked.search)
    if asked.as_json:
        _print_json(power_tables.power_json(done))
        return
    print_table(*power_tables.power_table(done))
    print_table(*power_tables.series_table(done))
    print("\n".join(power_tables.power_notes(done)))


def _training(asked: Asked) -> None:
    from analysis.agreement import print_table
    from scenarios import training_runs

    runs = training_runs.read_runs(str(asked.path), asked.search)
    if asked.as_json:
        _print_json(training_runs.runs_json(runs))
        return
    print_table(*training_runs.runs_table(runs))
    print("\n".join(training_runs.runs_notes(runs)))


def _document(asked: Asked) -> None:
    from scenarios.validation_document import write_document

    if "data" not in asked.texts:
        raise InputError("data", None, "data=DIR: a folder with measured/ in it")
    write_document(asked.path, Path(asked.texts["data"]).expanduser(), asked.search, asked.texts.get("claims"))
    print(f"wrote {asked.path}")


def _print_json(value: object) -> None:
    from analysis.metrics import plain

    print(json.dumps(plain(value), indent=2, allow_nan=False))


if __name__ == "__main__":
    sys.exit(cli.main(["validate", *sys.argv[1:]]))

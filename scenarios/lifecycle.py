"""``hybridfleet lifecycle``: what a model takes from its data to the end of its hardware, and when inference overtakes.

model=ID xpu=ID             what, on what; every key of `hybridfleet size` is taken, too
service.years= service.tokens_per_day= ...   every key that `hybridfleet list lifecycles default` shows; many take three
                            values: labour.persons=[1,2,4] is low, central, high
given.inference.energy_kwh= ...   amounts that are known, in place of computed ones
lifecycle=ID                another entry, such as lifecycle=bloomz_7b with published amounts
out=DIR                     a figure over time, and tables

Pre-training with its trials, fine-tuning, retraining, data, labour, inference and decommissioning, spread over the
tokens served. Formulas: docs/lifecycle.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from scenarios import cli
from scenarios.lifecycle_inputs import LifeInputs, read_life
from scenarios.lifecycle_stages import Life, live
from scenarios.schema import text
from scenarios.settings import arguments_of, pairs, plain_value
from sim.errors import InputError


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status.

    Raises:
        InputError: something on the command line cannot be used.
    """
    arguments = arguments_of("lifecycle", __doc__, "whose life, on what", argv)
    given = {key: plain_value(value) for key, value in pairs(arguments.settings)}
    out = Path(text("out", given["out"])) if "out" in given else None
    inputs = read_life(given, arguments.config_dir)
    life = live(inputs)
    if out is not None:
        _write(life, inputs, out)
    from scenarios import lifecycle_tables as tables

    if arguments.json:
        from analysis.metrics import plain

        print(json.dumps(plain(tables.life_json(life, inputs)), indent=2, allow_nan=False))
        return 0
    from analysis.agreement import print_table

    print_table(*tables.stages_table(life))
    print_table(*tables.token_table(life))
    print_table(*tables.overtaking_table(life))
    print("\n".join(tables.notes(life, inputs)))
    if out is not None:
        print(f"Figure: {out / 'lifecycle.png'}")
    return 0


def _write(life: Life, inputs: LifeInputs, out: Path) -> None:
    """Figure, tables and JSON, in a folder that appears when it is whole."""
    from analysis.metrics import plain
    from analysis.plots.lifecycle import write
    from scenarios.lifecycle_tables import curves, life_json, marks
    from scenarios.store import whole_or_nothing

    try:
        with whole_or_nothing(out) as folder:
            write(folder, curves(life), marks(life))
            found = json.dumps(plain(life_json(life, inputs)), indent=2, allow_nan=False)
            (folder / "lifecycle.json").write_text(found + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError("out", str(out), f"a folder that can be written ({error.strerror or error})") from error


if __name__ == "__main__":
    sys.exit(cli.main(["lifecycle", *sys.argv[1:]]))

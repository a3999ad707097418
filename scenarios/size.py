"""``hybridfleet size``: how many xPUs training, fine-tuning and inference of a model need, and what that takes.

model=ID xpu=ID   what, on what; model=[ID,ID,...] compares several (with out=DIR also as a figure)
slo=ID            what users expect (chat_relaxed); inference.rate=10 requests/s of inference.lengths=azure_conv_2023
precision= tp= pp= kv_precision= stack= engine.NAME=   of the engines that serve
grid= pue= host= cost= embodied=                       where, and what is counted
training.tokens= training.mfu= training.days= ...      every key that `hybridfleet list sizings default` shows

Memory by part; xPUs = max(what memory asks for, load / goodput); time, energy, carbon and dollars; whole nodes and
their price, also the least with which one can begin. Formulas: docs/lifecycle.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scenarios import cli
from scenarios.schema import list_of, text
from scenarios.settings import arguments_of, pairs, plain_value
from scenarios.size_inference import plan_serving
from scenarios.size_inputs import JOBS, SizeInputs, place_of, read_inputs
from scenarios.size_tables import Sized, many_models, notes, one_model, size_json, sizes
from scenarios.size_training import JobPlan, plan_job
from sim.errors import InputError


def size_model(name: str, inputs: SizeInputs) -> Sized:
    """Size everything for one model; what cannot be done is told in `refused`."""
    pool, site, rates, price = place_of(name, inputs)
    jobs: dict[str, JobPlan] = {}
    refused: dict[str, InputError] = {}
    for job in JOBS:
        try:
            jobs[job] = plan_job(inputs.jobs[job], pool, rates, price, inputs)
        except InputError as error:
            refused[job] = error
    serving = None
    try:
        serving = plan_serving(pool, site, price, inputs)
    except InputError as error:
        refused["inference"] = error
    return Sized(pool.model, pool.xpu.id, jobs, serving, refused)


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status.

    Raises:
        InputError: something on the command line cannot be used, or no number of xPUs does.
    """
    arguments = arguments_of("size", __doc__, "what to size, and on what", argv)
    given = {key: plain_value(value) for key, value in pairs(arguments.settings)}
    models = _models(given)
    out = Path(text("out", given["out"])) if "out" in given else None
    inputs = read_inputs(given, arguments.config_dir, text("slo", given.get("slo", "chat_relaxed")))
    sized = [size_model(name, inputs) for name in models]
    _check(sized, given)
    if out is not None:
        _write(sized, out)
    if arguments.json:
        from analysis.metrics import plain

        print(json.dumps(plain(size_json(sized, inputs)), indent=2, allow_nan=False))
        return 0
    _print(sized, inputs)
    if out is not None:
        print(f"Figure: {out / 'sizing.png'}")
    return 0


def _models(given: dict[str, Any]) -> list[str]:
    """The models that are asked for; takes them out of `given`."""
    asked = given.pop("model", None)
    if isinstance(asked, str):
        asked = [part.strip() for part in asked.strip("[]").split(",")]
    models = list_of(text)("model", asked)
    if not models or len(set(models)) < len(models):
        raise InputError("model", models, "a model, or a list of models that occur once; see `hybridfleet list models`")
    if "xpu" not in given:
        raise InputError("xpu", None, "an accelerator; see `hybridfleet list xpus`")
    return models


def _check(sized: Sequence[Sized], given: Mapping[str, Any]) -> None:
    """Refuse what cannot be answered: a part of one model that the user asked about, or everything of all models."""
    for each in sized:
        for job, error in each.refused.items():
            about = any(key.startswith(f"{job}.") for key in given)
            if about or (len(sized) == 1 and job in ("training", "inference")):
                raise error
    if all(not each.jobs and each.serving is None for each in sized):
        raise next(iter(sized[0].refused.values()))


def _print(sized: Sequence[Sized], inputs: SizeInputs) -> None:
    from analysis.agreement import print_table

    if len(sized) == 1:
        print_table(*one_model(sized[0]))
    else:
        print_table(*many_models(sized))
    print("\n".join(notes(sized, inputs)))


def _write(sized: Sequence[Sized], out: Path) -> None:
    """The figure and the numbers it shows, in a folder that appears when it is whole."""
    from analysis.plots.sizing import write
    from scenarios.store import whole_or_nothing

    try:
        with whole_or_nothing(out) as folder:
            write(folder, sizes(sized), sized[0].xpu)
    except OSError as error:
        raise InputError("out", str(out), f"a folder that can be written ({error.strerror or error})") from error


if __name__ == "__main__":
    sys.exit(cli.main(["size", *sys.argv[1:]]))

"""`hybridfleet reproduce NAME`: a published study, run with this simulator, and what it shows beside what was claimed.

Each study is a file of `conf/study`: its inputs, and the program that runs it. Nothing is fitted to the results.
KEY=VALUE replaces an input, out=DIR names the folder of the report; without a NAME the studies are listed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.study import Input, Outcome, document, print_outcome, write_outcome
from scenarios.listing import main as list_entries
from scenarios.schema import Section, nearest
from scenarios.settings import arguments_of, pairs, plain_value, unused_folder
from scenarios.store import check_out, whole_or_nothing
from sim.errors import InputError
from sim.hardware import catalogue

#: program of a preset -> module with `run(preset, search) -> Outcome`
PROGRAMS = {
    "four_questions": "scenarios.studies.four_questions",
    "interactive_premium": "scenarios.studies.interactive_premium",
    "phase_split": "scenarios.studies.phase_split",
    "load_settings": "scenarios.studies.load_settings",
    "old_and_new": "scenarios.studies.old_and_new",
    "paired_claims": "scenarios.studies.paired_claims",
}


def main(argv: Sequence[str]) -> int:
    """Run a study, print its tables and verdicts, and leave a folder with report, tables and figures.

    With ``--json`` nothing but JSON is printed, and a folder is written only where ``out=`` names one.

    Raises:
        InputError: no such study, or an input that cannot be used.
    """
    arguments = arguments_of("reproduce", __doc__, "NAME, then inputs of the study in place of the preset's", argv)
    if not arguments.settings:
        return list_entries(["studies", *_folders(arguments)])
    name, *settings = arguments.settings
    started, given = datetime.now(UTC), dict(pairs(settings))
    asked = given.pop("out", None)
    out = Path(asked) if asked else None if arguments.json else unused_folder(name, started)
    entry = catalogue.load_entry("study", name, arguments.config_dir)
    values = _with(entry.values, {key: plain_value(text) for key, text in given.items()})
    inputs = list(_inputs(values, entry.provenance, given))
    if out is not None:
        check_out(out)
    preset = Section(values, "")
    outcome = _program(preset).run(preset, tuple(arguments.config_dir))
    found = document(name, outcome, inputs)
    if out is not None:
        command = shlex.join(["hybridfleet", "reproduce", name, *(f"{key}={text}" for key, text in given.items())])
        with whole_or_nothing(out) as folder:
            write_outcome(folder, name, outcome, inputs, command)
            (folder / "study.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if arguments.json:
        json.dump(found, sys.stdout, indent=1, ensure_ascii=False)
        print()
    else:
        print_outcome(outcome)
        print(f"Results: {out}")
    return 0


def outcome_of(name: str, search: Sequence[Path] = ()) -> Outcome:
    """Run a study as its preset says.

    Raises:
        InputError: no such study.
    """
    preset = Section(catalogue.load_entry("study", name, search).values, "")
    outcome: Outcome = _program(preset).run(preset, tuple(search))
    return outcome


def _folders(arguments: argparse.Namespace) -> list[str]:
    return [word for folder in arguments.config_dir for word in ("--config-dir", str(folder))]


def _program(preset: Section) -> Any:
    name = preset.values.get("program")
    if name not in PROGRAMS:
        raise InputError("program", name, f"{nearest(str(name), PROGRAMS)}{' | '.join(PROGRAMS)}")
    return importlib.import_module(PROGRAMS[name])


def _with(values: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The preset with the user's own inputs, by dotted key."""
    changed = dict(values)
    for key, value in given.items():
        head, _, rest = key.partition(".")
        if head not in changed:
            known = [f"{prefix}{name}" for name in changed]
            raise InputError(f"{prefix}{key}", value, f"{nearest(f'{prefix}{head}', known)}{' | '.join(known)}")
        below = changed[head]
        if rest and not isinstance(below, Mapping):
            raise InputError(f"{prefix}{key}", value, f"no key below {prefix}{head}, whose value is {below!r}")
        changed[head] = _with(below, {rest: value}, f"{prefix}{head}.") if rest else value
    return changed


def _inputs(
    values: Mapping[str, Any],
    provenance: Mapping[str, tuple[str, str, str]],
    given: Mapping[str, str],
    prefix: str = "",
) -> Iterator[Input]:
    """Every input with its ground."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and key not in given:
            yield from _inputs(value, provenance, given, f"{key}.")
            continue
        unit, source, kind = provenance.get(key, ("", "", "choice"))
        if key in given:
            source, kind = "given on the command line", "given"
        yield Input(key, value if isinstance(value, str) else json.dumps(value), unit, kind, source)

"""KEY=VALUE settings of a command line, and folders for unnamed results: shared by `run`, `validate`, `calibrate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from scenarios.listing import Parser
from sim.errors import InputError

RUNS = Path("runs")  #: where results go that were given no folder


def arguments_of(command: str, text: str | None, what: str, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command that takes settings, ``--json`` and ``--config-dir``.

    Args:
        command: its name.
        text: what its help says.
        what: what its settings are, for its help.
        argv: the command line.
    """
    parser = Parser(f"hybridfleet {command}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=what)
    parser.add_argument("--json", action="store_true", help="print nothing but JSON")
    parser.add_argument("--config-dir", type=Path, action="append", default=[], help="further entries of your own")
    return parser.parse_intermixed_args(list(argv))


def pairs(settings: Iterable[str], repeated: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Split settings into keys and texts.

    Raises:
        InputError: one is no KEY=VALUE, or a key outside `repeated` comes twice.
    """
    seen = set()
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not text:
            raise InputError("arguments", setting, "KEY=VALUE")
        if key in seen and key not in repeated:
            raise InputError(key, text, "one value")
        seen.add(key)
        yield key, text


def is_known(key: str, known: Iterable[str]) -> bool:
    """Whether `key` is one of the known keys, or lies below one that ends in a dot."""
    return any(key == name or (name[-1] == "." and key.startswith(name)) for name in known)


def plain_value(text: str) -> Any:
    """A number, a boolean, null or a list as such; anything else is a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def unused_folder(name: str, at: datetime) -> Path:
    """A folder of results by name and time; a second one of the same second gets a number."""
    folder = RUNS / f"{name}-{at:%Y%m%dT%H%M%SZ}"
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free

"""Runs the command line in this process, as a user would, and says what it wrote."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from scenarios import cli

#: A run of a blink: twenty requests on one pool, and nothing drawn.
QUICK = ("fleet=single", "workload=poisson", "workload.limit=20", "figures=false", "report=false", "progress=none")


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status and both outputs."""

    status: int
    out: str
    err: str


def run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> Done:
    """Call the program with these arguments."""
    capsys.readouterr()
    status = cli.main(argv)
    text = capsys.readouterr()
    return Done(status, text.out, text.err)

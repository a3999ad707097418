"""Every `hybridfleet run` that README and docs show works as written, on the first requests of its workload."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from scenarios.compose import composed
from tests.scenarios.command import run

ROOT = Path(__file__).resolve().parents[2]
#: words that stand for something of the reader's own: a file, a folder, a number
OPEN = re.compile(r"\b[A-Z]{2,}\b|\.csv|\.jsonl|\.\.\.")


def commands() -> dict[str, list[str]]:
    """The words after `hybridfleet run`, by the command's place, of those that need nothing but this program."""
    found = {}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip().startswith("hybridfleet run "):
                words = shlex.split(line, comments=True)[2:]
                if not any(OPEN.search(word) for word in words):
                    found[f"{page.name}:{number}"] = words
    return found


def first(word: str) -> str:
    """Of a sweep's override, the one with its first value."""
    key, _, value = word.partition("=")
    return word if value.startswith(("[", "{")) else f"{key}={value.split(',')[0]}"


@pytest.mark.parametrize("words", [pytest.param(words, id=place) for place, words in commands().items()])
def test_a_documented_run_works(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [word for word in words if not word.startswith(("out=", "--multirun"))]
    if "--multirun" in words:
        given = [first(word) for word in given]
    workload = composed(given).resolve()["workload"]
    given += [f"workload.limit={min(workload['limit'] or 20, 20)}"] if "limit" in workload else []
    done = run(["run", *given, "figures=false", "report=false", "progress=none", f"out={tmp_path / 'run'}"], capsys)
    assert done.status == 0, done.err


def test_there_are_such_commands() -> None:
    assert len(commands()) > 20

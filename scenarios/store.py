"""The run folder: written beside its final place, and renamed when whole."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from analysis.economics import Terms
from analysis.load import frames
from analysis.metrics import plain, summarize
from sim.errors import InputError
from sim.results import Result

PACKAGES = ("simpy", "numpy", "scipy", "polars", "matplotlib", "hydra-core", "PyYAML")
#: Settings that say where results go and what the terminal shows: no part of what was simulated.
NOT_SIMULATED = ("out", "progress")


def check_out(out: Path) -> None:
    """Refuse a run folder that exists or cannot be made; call it before the run, not after.

    Raises:
        InputError: names the folder and what would be accepted.
    """
    if os.path.lexists(out):
        raise InputError("out", str(out), "a folder that does not exist yet")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        # Permissions do not tell: root may write where the file system lets nobody, as in /proc.
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=parent).cleanup()
    except OSError as error:
        reason = f"nothing can be made in {parent} ({error.strerror})"
        raise InputError("out", str(out), f"a folder that can be made; {reason}") from error


def write_run(
    out: Path,
    result: Result,
    config: Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    inputs: Iterable[Path] = (),
    provenance: Mapping[str, int] | None = None,
    started: datetime | None = None,
    figures: bool = True,
    report: bool = True,
    terms: Terms | None = None,
) -> dict[str, Any]:
    """Write tables, summary, manifest, figures and report of a run into the new folder `out`.

    The folder appears under its name only when it is whole; whatever ends the writing early leaves nothing behind.

    Args:
        out: folder to make; must not exist.
        result: what the run returned.
        config: the resolved configuration, as plain data.
        overrides: what the user typed, such as ``workload.rate=4``.
        inputs: files that the run read; their hashes are recorded.
        provenance: how many of the values used are measured, published, derived, assumed.
        started: when the program began (UTC).
        figures: also draw figures.
        report: also write report.html.
        terms: on what terms the fleet served.

    Returns:
        The summary that was written.

    Raises:
        InputError: `out` exists or cannot be made.
    """
    from analysis.figures import write_figures
    from analysis.report import write_report

    check_out(out)
    with whole_or_nothing(out) as folder:
        for name, table in frames(result).items():
            table.write_parquet(folder / f"{name}.parquet")
        summary = summarize(result, terms)
        manifest = build_manifest(result, config, overrides, inputs, provenance, started)
        write_json(folder / "summary.json", summary)
        write_json(folder / "manifest.json", manifest)
        drawn = write_figures(result, folder / "figures", summary) if figures else {}
        if report:
            write_report(folder / "report.html", summary, manifest, drawn)
    return summary


def build_manifest(
    result: Result,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    inputs: Iterable[Path],
    provenance: Mapping[str, int] | None,
    started: datetime | None,
) -> dict[str, Any]:
    """Everything needed to run it again. Equal runs differ in ``times`` only."""
    settings = plain({key: value for key, value in config.items() if key not in NOT_SIMULATED})
    canonical = json.dumps(settings, sort_keys=True, allow_nan=False)
    finished = datetime.now(UTC)
    return {
        **program(),
        "seed": result.seed,
        "overrides": [text for text in overrides if text.lstrip("+").split("=")[0] not in NOT_SIMULATED],
        "config": settings,
        "config_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "inputs_sha256": {str(path): _file_sha256(path) for path in sorted(set(inputs))},
        "provenance": plain(dict(provenance or {})),
        "setup": plain(result.setup),
        "times": {
            "started": None if started is None else started.isoformat(timespec="seconds"),
            "finished": finished.isoformat(timespec="seconds"),
        },
    }


def program() -> dict[str, Any]:
    """What ran: version and commit of this program, of Python, and of the packages that it rests on."""
    return {
        "name": "hybridfleet",
        "version": _version("hybridfleet"),
        "git": _git_state(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


@contextmanager
def whole_or_nothing(out: Path) -> Iterator[Path]:
    """A temporary sibling of `out` that takes its name at the end, or goes, with any parents made for it."""
    out = out.absolute()
    made = [folder for folder in out.parents if not folder.exists()]  # innermost first
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # left by a killed process of the same id
        partial.mkdir(parents=True)
        yield partial
        if os.path.lexists(out):  # a rename would replace an empty folder without a word
            raise InputError("out", str(out), "a folder that does not exist yet")
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON; NaN is refused."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit of the checkout that the program runs from, and whether its files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "modified": bool(_git(root, "status", "--porcelain", "--untracked-files=no"))}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

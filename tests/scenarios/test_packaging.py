"""The wheel: what is in it, and that the program runs from it, far from any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.scenarios.command import QUICK

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_the_four_packages_and_their_data(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sim", "scenarios", "analysis", "conf"}
    for path in [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "analysis").rglob("*.mplstyle")]:
        assert path.relative_to(ROOT).as_posix() in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    metadata = next(name for name in names if name.endswith("METADATA"))
    assert "Requires-Python: >=3.11" in zipfile.ZipFile(wheel).read(metadata).decode()


def test_the_program_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    installed, work = tmp_path / "installed", tmp_path / "work"
    zipfile.ZipFile(wheel).extractall(installed)
    work.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    code = "import sys, scenarios, scenarios.cli as c; print(scenarios.__file__); sys.exit(c.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", *QUICK, "out=here"],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.splitlines()[0]).is_relative_to(installed)
    manifest = json.loads((work / "here" / "manifest.json").read_text())
    assert manifest["git"] is None
    assert [path.name for path in work.iterdir()] == ["here"]


def test_pinned_versions_name_no_index() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert len(pins) > 20
    assert all(line.count("==") == 1 and "/" not in line and " " not in line for line in pins)

"""The command line: what it answers, what it leaves, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scenarios import cli
from scenarios.compose import check_config_dir
from scenarios.progress import Lines, clock, reporter, share_done, time_left_s
from sim.errors import InputError
from tests.scenarios.command import QUICK, run

PROGRAM = Path(sys.executable).with_name("hybridfleet")
FILES_OF_A_RUN = {"requests.parquet", "timeline.parquet", "gaps.parquet", "summary.json", "manifest.json"}


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["--help"], capsys)
    assert done.status == 0
    assert all(f"  {name}" in done.out for name in cli.COMMANDS)
    assert run([], capsys).out == done.out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(r"hybridfleet \d+\.\d+\.\d+\n", run(["--version"], capsys).out)


def test_help_imports_nothing_slow() -> None:
    code = "import sys; from scenarios.cli import main; main(['--help']); print([*sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert all(f"'{name}'" not in loaded for name in ("hydra", "omegaconf", "numpy", "simpy", "rich", "argparse"))


def test_help_of_run_shows_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["run", "--help"], capsys)
    assert done.status == 0
    assert all(key in done.out for key in ("--multirun", "--config-dir", "warmup_s:", "timeline_bin_s:", "basis:"))


def test_a_run_leaves_one_folder_and_prints_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(["run", *QUICK, "out=here", "seed=3"], capsys)
    assert (done.status, done.err) == (0, "")
    assert "here" in done.out.splitlines()[-1]
    assert len(done.out.splitlines()) > 5
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert {path.name for path in (tmp_path / "here").iterdir()} == FILES_OF_A_RUN
    manifest = json.loads((tmp_path / "here" / "manifest.json").read_text())
    assert manifest["seed"] == 3
    assert manifest["config"]["workload"]["limit"] == 20
    assert sum(manifest["provenance"].values()) > 20


def test_the_default_name_tells_scenario_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(["run", *QUICK], capsys).status == 0
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(names) == 2
    assert all(re.fullmatch(r"poisson-single-least_outstanding-\d{8}T\d{6}Z(-2)?", name) for name in names)


def test_equal_runs_leave_equal_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in ("a", "b"):
        assert run(["run", *QUICK, f"out={out}"], capsys).status == 0
    for name in ("requests.parquet", "timeline.parquet", "gaps.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    for name, apart in (("summary.json", "performance"), ("manifest.json", "times")):
        one, other = (json.loads((tmp_path / out / name).read_text()) for out in ("a", "b"))
        assert one.pop(apart)
        assert other.pop(apart)
        assert one == other


def test_a_sweep_leaves_a_folder_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(["run", *QUICK, "-m", "seed=1,2", "workload.rate=2,4", "out=sweep"], capsys)
    assert (done.status, done.err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["0", "1", "2", "3"]
    configs = [json.loads((tmp_path / "sweep" / n / "manifest.json").read_text())["config"] for n in "0123"]
    assert [(c["seed"], c["workload"]["rate"]) for c in configs] == [(1, 2), (1, 4), (2, 2), (2, 4)]


def test_a_sweep_goes_on_after_a_run_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(["run", *QUICK, "--multirun", "workload.rate=2,-1,4", "out=sweep"], capsys)
    assert done.status == 2
    (line,) = done.err.splitlines()
    assert line.startswith("hybridfleet: error: run 1 (")
    assert "workload.rate=-1" in line
    assert sorted(path.name for path in (tmp_path / "sweep").iterdir()) == ["0", "2"]


def test_a_sweep_without_out_goes_below_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["run", *QUICK, "-m", "seed=1,2"], capsys).status == 0
    (sweep,) = (tmp_path / "runs").iterdir()
    assert sweep.name.startswith("sweep-")
    assert sorted(path.name for path in sweep.iterdir()) == ["0", "1"]


def test_a_folder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's router, grid and whole scenario, from any directory."""
    own, work = tmp_path / "own", tmp_path / "work"
    for folder in ("router", "scenario"):
        (own / folder).mkdir(parents=True)
    work.mkdir()
    (own / "router" / "mine.yaml").write_text("_target_: sim.routing.static.Random\n")
    (own / "scenario" / "small.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /router: mine\n  - override /fleet: single\nseed: 7\n"
    )
    monkeypatch.chdir(work)
    done = run(["run", *QUICK[1:], "--config-dir", str(own), "+scenario=small", "out=run"], capsys)
    assert (done.status, done.err) == (0, "")
    config = json.loads((work / "run" / "manifest.json").read_text())["config"]
    assert (config["seed"], config["router"]["_target_"]) == (7, "sim.routing.static.Random")


@pytest.mark.parametrize(
    "content",
    [
        "hydra: {callbacks: {x: {_target_: os.system}}}",
        "defaults: [{override hydra/job_logging: evil}]",
        "# @package hydra.job_logging\nversion: 1",
        "defaults: [router@hydra.callbacks.x: evil]",
        '"\\x68ydra": {run: {dir: .}}',
    ],
)
def test_a_folder_may_not_set_up_hydra(content: str, tmp_path: Path) -> None:
    (tmp_path / "scenario").mkdir()
    (tmp_path / "scenario" / "evil.yaml").write_text(content)
    with pytest.raises(InputError, match="no settings of Hydra"):
        check_config_dir(tmp_path)


def test_a_folder_may_mention_hydra_in_its_notes(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("# works with hydra\nabout: {note: swept with hydra}\n")
    check_config_dir(tmp_path)


def test_cfg_prints_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(["run", "--cfg", "job", "fleet=single", "seed=11"], capsys)
    assert (done.status, done.err) == (0, "")
    assert "seed: 11" in done.out
    assert list(tmp_path.iterdir()) == []


def test_hydra_leaves_the_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    argv = list(sys.argv)
    assert run(["run", "seed=no"], capsys).status == 2
    assert (sys.argv, os.environ.get("HYDRA_FULL_ERROR"), Path.cwd()) == (argv, None, tmp_path)


def test_an_interrupt_ends_cleanly(tmp_path: Path) -> None:
    """Ctrl-C in the second run of a sweep: the first is kept and named, of the second nothing is left."""
    arguments = ["run", "-m", "seed=1,2", "workload.limit=20,2000000", "workload.duration_s=null", "progress=none"]
    process = subprocess.Popen(
        [str(PROGRAM), *arguments, "fleet=single", "workload=poisson", "figures=false", "report=false", "out=sweep"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60.0
    while not (tmp_path / "sweep" / "0").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "hybridfleet: interrupted; saved: sweep/0\n"
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["0"]


def test_the_module_is_the_same_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scenarios.run", *QUICK, "out=x"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "x" / "summary.json").is_file()


class State:
    """A simulation's progress."""

    def __init__(self, done: int, expected: float | None, sim_time_s: float = 0.0, end_s: float | None = None) -> None:
        self.done, self.arrived, self.expected = done, done, expected
        self.sim_time_s, self.end_s = sim_time_s, end_s


def test_progress_knows_share_and_time_left() -> None:
    assert share_done(State(25, 100.0)) == 0.25
    assert share_done(State(25, None, 30.0, 60.0)) == 0.5
    assert share_done(State(25, None)) is None
    assert time_left_s(State(25, 100.0), 10.0) == pytest.approx(30.0)
    assert time_left_s(State(0, 100.0), 10.0) is None
    assert clock(3661.0) == "1:01:01"


def test_progress_prints_plain_lines_off_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scenarios.progress.LINE_EVERY_S", 0.0)
    with reporter("auto", "run 3: ", sys.stderr) as show:
        assert isinstance(show, Lines)
        show(State(1500, 6000.0, 600.0))
    text = capsys.readouterr().err
    assert text.startswith("run 3: 0:10:00 simulated, 1,500 of about 6,000 requests done, about 0:00:00 left")


def test_a_bar_moves(capsys: pytest.CaptureFixture[str]) -> None:
    with reporter("bar") as show:
        show(State(3000, 6000.0, 600.0))
    assert "3,000 of about 6,000 requests done" in capsys.readouterr().err

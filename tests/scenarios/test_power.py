"""Power logs: clocks, idle power, and power over time that a model made up and one that was measured."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from scenarios.power_compare import compare_power
from scenarios.power_log import read_power_log
from sim.hardware import catalogue
from tests.scenarios.command import run
from tests.scenarios.records import DATA, agreement, needs_data, one_line

START = datetime(2025, 12, 11, 21, 0, 0)
BUSY = (range(10, 20), range(60, 70))  #: seconds in which requests run
LINE = (
    "INFO {stamp:%m-%d %H:%M:%S} [loggers.py:236] Engine 000: Avg prompt throughput: {prompt:.1f} tokens/s, "
    "Avg generation throughput: {output:.1f} tokens/s, Running: {running} reqs, Waiting: 0 reqs, "
    "GPU KV cache usage: {kv:.1f}%, Prefix cache hit rate: 0.0%\n"
)


def write_log(folder: Path, watts: list[float], zone_h: int = 0, late_s: int = 0, server: bool = True) -> Path:
    """A folder of logs of an RTX A6000; the engine's clock is `zone_h` hours and `late_s` seconds ahead."""
    folder.mkdir()
    stamps = [START + timedelta(seconds=0.25 * i) for i in range(4 * len(watts))]
    lines = [f"{at:%Y/%m/%d %H:%M:%S.%f}"[:-3] + f", 0, 50, {watts[i // 4]:.2f}" for i, at in enumerate(stamps)]
    (folder / "gpu_power_log.txt").write_text("\n".join(lines) + "\n")
    text = "INFO Initializing engine with config: model='meta-llama/Llama-3.1-8B', tensor_parallel_size=1\n"
    text += "INFO GPU KV cache size: 200,000 tokens\n"
    for pulse in BUSY:
        for second in pulse:
            stamp = START + timedelta(hours=zone_h, seconds=second + 1 + late_s)
            running = 0 if second == pulse[-1] else 10
            text += LINE.format(stamp=stamp, prompt=0.0, output=400.0, running=running, kv=2.0)
    (folder / "vllm.txt").write_text(text)
    if server:  # its clock starts 5 s after that of the GPUs
        rows = [f"{second - 5}\t{power + 362.0}" for second, power in enumerate(watts) if second >= 5]
        (folder / "server_power.tsv").write_text("time_s\tpower_w\n" + "\n".join(rows) + "\n")
    return folder


def steps(busy_w: float = 290.0, idle_w: float = 89.0, sleep_w: float = 34.0, standby_s: int = 18) -> list[float]:
    """Power by second: asleep, busy, and on standby after work."""
    watts = [sleep_w] * 100
    for pulse in BUSY:
        for second in range(pulse[0], pulse[-1] + 1):
            watts[second] = busy_w
        for second in range(pulse[-1] + 1, pulse[-1] + 1 + standby_s):
            watts[second] = idle_w
    return watts


@pytest.mark.parametrize(("zone_h", "late_s"), [(0, 0), (-8, 3), (5, -2)])
def test_clocks_are_set_by_the_first_rise_of_power(tmp_path: Path, zone_h: int, late_s: int) -> None:
    log = read_power_log(write_log(tmp_path / "a6000", steps(), zone_h, late_s))
    assert log.activity.end_s[0] == pytest.approx(11.0, abs=0.3)
    assert (log.model, log.tp) == ("meta-llama/Llama-3.1-8B", 1)
    assert log.server_w is not None
    assert np.isnan(log.server_w[:4]).all()
    assert log.server_w[30:] - log.gpu_w[30:] == pytest.approx(362.0, abs=1.0)


def test_idle_xpus_fall_asleep_and_busy_ones_draw_what_their_steps_take(tmp_path: Path) -> None:
    done = compare_power(write_log(tmp_path / "a6000", steps()), {}, None)
    xpu = catalogue.xpu("rtx_a6000")
    assert (done.pool.xpu.id, done.host) == ("rtx_a6000", "a6000_server")
    assert done.busy[12:19] == pytest.approx(1.0)
    assert done.gpu_w[25] == xpu.idle_w
    assert done.gpu_w[45] == done.gpu_w[5] == xpu.sleep_w
    # 40 steps a second over weights of 15 GB: an MBU of 0.78, and kernels run nearly all the time
    mbu = 40.0 * 2.0 * (8.03e9 - 0.525e9) / 768e9
    drawn = xpu.power.static_w + xpu.power.memory_w * mbu
    assert done.gpu_w[15] == pytest.approx(drawn, rel=0.08)
    assert done.gpu_w.max() <= xpu.tdp_w
    assert done.sections()["server_idle"]["mean_absolute_error"] < 0.01


def test_calibration_reads_idle_power_off_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write_log(tmp_path / "a6000", steps(idle_w=110.0, sleep_w=25.0, standby_s=12)), tmp_path / "out"
    done = run(["calibrate", f"power={path}", f"out={out}", "--json"], capsys)
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)["rtx_a6000"]["constants"]
    assert found == {"idle_w": 110.0, "standby_s": pytest.approx(12.0, abs=1.0), "sleep_w": 25.0}
    entry = catalogue.xpu("rtx_a6000_calibrated", [out])
    assert (entry.idle_w, entry.sleep_w) == (110.0, 25.0)


def test_a_log_without_sleep_leaves_idle_power_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_log(tmp_path / "a6000", steps(idle_w=70.0, sleep_w=70.0))
    done = run(["calibrate", f"power={path}", f"out={tmp_path / 'out'}"], capsys)
    assert "Read off: idle_w 70\n" in done.out


def test_seconds_and_errors_are_in_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_log(tmp_path / "log", steps(), server=False)
    found = agreement(capsys, f"power={path}", "xpu=rtx_a6000")
    assert "server" not in found
    assert len(found["series"]) == 100
    assert found["series"][5]["gpu_simulated_w"] == catalogue.xpu("rtx_a6000").sleep_w
    errors = [abs(each["gpu_simulated_w"] - each["gpu_measured_w"]) for each in found["series"]]
    assert found["gpu"]["mean_absolute_error_w"] == pytest.approx(np.mean(errors))


def test_logs_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    one_line(run(["validate", f"power={empty}"], capsys), "gpu_power*")
    bare = write_log(tmp_path / "bare", steps())
    one_line(run(["validate", f"power={bare}"], capsys), "xpu=ID")
    one_line(run(["validate", f"power={bare}", "xpu=rtx_a6000", "host=none"], capsys), "list hosts")
    flat = write_log(tmp_path / "flat", [50.0] * 100)
    one_line(run(["validate", f"power={flat}", "xpu=rtx_a6000"], capsys), "idle and busy")
    (bare / "gpu_power_log.txt").write_text("2025/12/11 21:00:00.000, 0, 50, many\n")
    one_line(run(["validate", f"power={bare}", "xpu=rtx_a6000"], capsys), "line 1", "watts")
    (flat / "vllm.txt").write_text("nothing\n")
    one_line(run(["calibrate", f"power={flat}", "xpu=rtx_a6000"], capsys), "power")


@needs_data
def test_a_measured_server_stays_within_the_documented_bound() -> None:
    from scenarios.validation_document import BOUNDS

    sections = compare_power(DATA / "measured/power/a6000_llama31_8b_tp1", {}, None).sections()
    for name in ("gpu", "server"):
        assert sections[name]["mean_absolute_error"] < BOUNDS["power of a server over time, mean"]

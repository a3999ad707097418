"""Logs of power over time: watts of the GPUs and of their server, and what the engine did meanwhile.

A folder holds `gpu_power*` (lines `date time, index, utilisation, watts`, as nvidia-smi prints them), the log of a vLLM
server with its lines of throughput, and perhaps `server_power*` (a table of time_s and power_w, tabs or commas). Clocks
differ: the engine's by whole quarters of an hour and a few seconds, the server's by any offset. Both are set so that
power first rises where it does in the log of the GPUs.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from scenarios.fitting import Floats
from sim.errors import InputError

_GPU_LINE = re.compile(
    r"(\d{4}[/-]\d\d[/-]\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?),\s*(\d+),\s*([\d.]+)\s*%?,\s*([\d.]+)\s*W?"
)
_ACTIVITY = re.compile(
    r"(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d) .*Avg prompt throughput: ([\d.]+) tokens/s, Avg generation throughput: "
    r"([\d.]+) tokens/s, Running: (\d+) reqs.*KV cache usage: ([\d.]+)%"
)
_KV_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
_MODEL = re.compile(r"model='([^']+)'")
_TP = re.compile(r"tensor_parallel_size=(\d+)")
_LONGEST_S = 15.0  #: between two lines of activity; after a longer pause a line stands for one interval alone


@dataclass(frozen=True, slots=True)
class Activity:
    """What an engine did, by interval.

    Attributes:
        end_s: end of each interval, on the clock of the GPUs [s].
        length_s: its length [s].
        prompt, output: tokens per second in it [1/s].
        running: sequences at its end.
        kv: tokens in the KV cache at its end; NaN if the log does not tell the size of the cache.
    """

    end_s: Floats
    length_s: Floats
    prompt: Floats
    output: Floats
    running: Floats
    kv: Floats


@dataclass(frozen=True, slots=True)
class PowerLog:
    """A folder of logs, on one clock that starts with that of the GPUs.

    Attributes:
        name: of the folder.
        second_s: starts of the seconds [s].
        gpu_w: mean power of all GPUs in each second [W].
        server_w: power of the server, NaN where its log does not reach [W]; or None without such a log.
        activity: what the engine did.
        model: as the engine names it, or None.
        tp: xPUs of the engine, or None.
    """

    name: str
    second_s: Floats
    gpu_w: Floats
    server_w: Floats | None
    activity: Activity
    model: str | None
    tp: int | None


def read_power_log(path: Path) -> PowerLog:
    """Read a folder of logs.

    Raises:
        InputError: the folder lacks the log of the GPUs or of the engine, or one of them cannot be read.
    """
    gpu = _one(path, "gpu_power*", "gpu_power*: date time, index, utilisation, watts")
    engine = next((each for each in sorted(path.glob("*vllm*")) if each.is_file()), None)
    if engine is None:
        raise InputError("power", str(path), "a folder with the log of a vLLM server, *vllm*")
    start, gpu_w = _gpu(gpu)
    onset_s = _onset(gpu_w)
    text = _text(engine)
    activity = _activity(text, start, onset_s, engine)
    second_s = np.arange(len(gpu_w), dtype=float)
    server = next(iter(sorted(path.glob("server_power*"))), None)
    server_w = None if server is None else _server(server, second_s, onset_s)
    model, tp = _MODEL.search(text), _TP.search(text)
    name = path.resolve().name
    return PowerLog(name, second_s, gpu_w, server_w, activity, model[1] if model else None, int(tp[1]) if tp else None)


def _one(path: Path, pattern: str, accepted: str) -> Path:
    found = sorted(path.glob(pattern)) if path.is_dir() else []
    if not found:
        raise InputError("power", str(path), f"a folder with {accepted}")
    return found[0]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("power", str(path), f"a readable text file ({error})") from None


def _gpu(path: Path) -> tuple[datetime, Floats]:
    """When the log starts, and the mean power of all GPUs together by second [W]."""
    stamps, watts, indices = [], [], set()
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip() or not line[0].isdigit():
            continue  # a header
        match = _GPU_LINE.fullmatch(line.strip())
        if match is None:
            raise InputError("power", line.strip(), "date time, index, utilisation, watts", f"{path} line {number}")
        stamps.append(datetime.fromisoformat(match[1].replace("/", "-")))
        indices.add(match[2])
        watts.append(float(match[4]))
    if len(stamps) < 2:
        raise InputError("power", str(path), "at least two lines: date time, index, utilisation, watts")
    at = np.array([(stamp - stamps[0]).total_seconds() for stamp in stamps])
    if (np.diff(at) < 0.0).any():
        raise InputError("power", str(path), "lines in order of time")
    second = at.astype(int)
    counts = np.bincount(second)
    sums = np.bincount(second, weights=watts) * len(indices)
    known = np.flatnonzero(counts)
    return stamps[0], np.interp(np.arange(len(counts)), known, sums[known] / counts[known])


def _onset(watts: Floats) -> float:
    """When power first passes the middle between its least and its most [s], between the seconds."""
    middle = 0.5 * (watts.min() + watts.max())
    above = np.flatnonzero(watts > middle)
    if not len(above) or watts.max() < 1.2 * watts.min():
        raise InputError("power", f"{watts.min():.0f} to {watts.max():.0f} W", "a log with idle and busy times")
    at = int(above[0])
    if at == 0:
        return 0.0
    # a second that is only partly busy tells how late in it the work began
    before, after = watts[at - 1], watts[min(at + 1, len(watts) - 1)]
    return at + 1.0 - float(np.clip((watts[at] - before) / max(after - before, 1e-9), 0.0, 1.0))


def _activity(text: str, start: datetime, onset_s: float, path: Path) -> Activity:
    """The engine's lines of throughput, on the clock of the GPUs."""
    size = _KV_TOKENS.search(text)
    tokens = float(size[1].replace(",", "")) if size else float("nan")
    rows = list(_lines(text, start))
    if not any(row[2] for row in rows):
        raise InputError("power", str(path), "the log of a vLLM server with lines of its generation throughput")
    table = np.array(rows)
    end_s = table[:, 0]
    gaps = np.diff(end_s, prepend=end_s[0] - 1e9)
    usual = float(np.median(gaps[1:])) if len(gaps) > 1 else 1.0
    length_s = np.where(gaps <= max(_LONGEST_S, 1.5 * usual), gaps, usual)
    # the first line with tokens ends the interval in which power rose; clocks differ by a zone and some seconds
    first = int(np.flatnonzero(table[:, 1] + table[:, 2])[0])
    busy = table[first, 2] / max(table[first : first + 3, 2].max(), 1e-9)
    began_s = end_s[first] - length_s[first] * float(np.clip(busy, 0.0, 1.0))
    return Activity(end_s + onset_s - began_s, length_s, table[:, 1], table[:, 2], table[:, 3], table[:, 4] * tokens)


def _lines(text: str, start: datetime) -> Iterator[tuple[float, float, float, float, float]]:
    """End [s after the start of the GPUs' log], prompt and output rate, sequences, share of the cache."""
    for match in _ACTIVITY.finditer(text):
        month, day, hour, minute, second = (int(match[group]) for group in range(1, 6))
        try:
            stamp = datetime(start.year, month, day, hour, minute, second)
        except ValueError:
            raise InputError("power", match[0][:30], "a date and time, as vLLM logs them") from None
        at = (stamp - start).total_seconds()
        yield at, float(match[6]), float(match[7]), float(match[8]), float(match[9]) / 100.0


def _server(path: Path, second_s: Floats, onset_s: float) -> Floats:
    """Power of the server at the seconds of the GPUs' log [W]."""
    text = _text(path)
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t" if "\t" in text else ","))
    try:
        at, watts = np.array([(float(row["time_s"]), float(row["power_w"])) for row in rows]).T
    except (KeyError, TypeError, ValueError):
        raise InputError("power", str(path), "a table with columns time_s and power_w, all of them numbers") from None
    if len(at) < 2 or (np.diff(at) <= 0.0).any():
        raise InputError("power", str(path), "times that rise")
    at = at + onset_s - (at[0] + _onset(watts))
    return np.asarray(np.interp(second_s, at, watts, left=np.nan, right=np.nan))

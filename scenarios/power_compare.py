"""Power over time as measured, and as the model gives it for what the engine did in each second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.agreement import Section, beside
from scenarios.deployment import pool_of, xpu_named
from scenarios.fitting import Floats
from scenarios.power_log import PowerLog, read_power_log
from sim.errors import InputError
from sim.fleet.spec import Pool
from sim.hardware import catalogue
from sim.hardware.deployment import Deployment
from sim.hardware.timing import RooflineTiming
from sim.hardware.xpu import XPU

_CHUNK = 2048  #: prompt tokens of a step
_LEAST_PAUSE, _SETTLING = 10, 3  #: seconds of a pause that is looked at, and those at its start that are not
_FALLEN = 0.7  #: share of idle power below which an xPU has gone to sleep
_BUSY_SHARE = 0.5  #: of a second, from which on it counts as busy


@dataclass(frozen=True, slots=True)
class PowerOverTime:
    """A log beside the model, by second.

    Attributes:
        log, pool: the log, and the pool that it is of.
        busy: share of each second in which requests ran.
        gpu_w: simulated power of all xPUs [W].
        host_w: simulated power of the host [W], or None where there is none to compare with.
        host: its entry.
    """

    log: PowerLog
    pool: Pool
    busy: Floats
    gpu_w: Floats
    host_w: float | None
    host: str | None

    def sections(self) -> dict[str, Section]:
        """Mean power and its errors by second, for the xPUs and the server, in all seconds and in busy ones."""
        found = {}
        sides = [("gpu", self.log.gpu_w, self.gpu_w)]
        if self.log.server_w is not None and self.host_w is not None:
            sides.append(("server", self.log.server_w, self.gpu_w + self.host_w))
        for name, measured, simulated in sides:
            known = np.isfinite(measured)
            for part, chosen in (
                ("", known),
                ("_busy", known & (self.busy >= 1.0)),
                ("_idle", known & (self.busy == 0)),
            ):
                if chosen.any():
                    found[name + part] = _section(measured[chosen], simulated[chosen])
        return found


def _section(measured: Floats, simulated: Floats) -> Section:
    off = np.abs(simulated - measured)
    return {
        **beside(float(measured.mean()), float(simulated.mean())),
        "seconds": len(measured),
        "mean_absolute_error_w": float(off.mean()),
        "mean_absolute_error": float(off.mean() / measured.mean()),
        "mean_absolute_error_by_second": float((off / measured).mean()),
    }


def compare_power(path: Path, given: Mapping[str, Any], host: str | None, search: Sequence[Path] = ()) -> PowerOverTime:
    """Read a folder of logs and simulate the power of every second.

    Args:
        path: the folder, see `scenarios.power_log`.
        given: the user's own keys of the pool; `xpu` where neither folder nor catalogue tells it.
        host: entry of the host; default: the one named like the xPU, if there is one.
        search: further folders of the catalogue.

    Raises:
        InputError: something in the folder cannot be used.
    """
    log = read_power_log(path)
    pool = pool_of_log(log, given, search)
    host = host or _host_like(pool.xpu, search)
    host_w = None
    if host is not None:
        host_w = float(catalogue.load_entry("host", host, search).values["power_w"]) * pool.tp
    busy, gpu_w = simulate(log, pool)
    return PowerOverTime(log, pool, busy, gpu_w, host_w, host)


def pool_of_log(log: PowerLog, given: Mapping[str, Any], search: Sequence[Path]) -> Pool:
    """The pool that a log is of."""
    if "model" not in given and log.model is None:
        raise InputError("model", None, "model=ID beside a log that does not name it")
    stated: dict[str, Any] = {"model": log.model, "tp": log.tp or 1}
    if "xpu" not in given:
        stated["xpu"] = _xpu_of(log.name, search)
    return pool_of(stated, given, search)


def _xpu_of(name: str, search: Sequence[Path]) -> str:
    """xPU named by a folder, such as a6000_run1 for rtx_a6000."""
    try:
        return xpu_named(name, search)
    except InputError as error:
        try:
            return xpu_named(f"rtx {name}", search)
        except InputError:
            raise error from None


def _host_like(xpu: XPU, search: Sequence[Path]) -> str | None:
    """The host whose name begins with a word of the xPU's."""
    words = xpu.id.split("_")
    return next((host for host in catalogue.list_entries("host", search) if host.split("_")[0] in words), None)


def simulate(log: PowerLog, pool: Pool) -> tuple[Floats, Floats]:
    """Share of each second in which requests ran, and power of all xPUs in it [W]."""
    timing = RooflineTiming(Deployment(pool.model, pool.xpu, pool.tp, pool.precision))
    activity, seconds = log.activity, len(log.second_s)
    busy, joules = np.zeros(seconds), np.zeros(seconds)
    most_w = pool.xpu.tdp_w * pool.tp - timing.static_w
    for index in np.flatnonzero(activity.prompt + activity.output > 0.0).tolist():
        length_s = float(activity.length_s[index])
        work_s, dynamic_j = _work(timing, pool, log, index)
        active_s = min(length_s, max(work_s, length_s if activity.running[index] else 0.0))
        per_second = np.clip(
            np.minimum(activity.end_s[index], log.second_s + 1.0)
            - np.maximum(activity.end_s[index] - length_s, log.second_s),
            0.0,
            None,
        )
        busy += per_second * active_s / length_s
        joules += per_second * min(dynamic_j / length_s, most_w * active_s / length_s)
    busy = np.minimum(busy, 1.0)
    return busy, busy * timing.static_w + joules + (1.0 - busy) * _idle_w(busy, pool)


def _work(timing: RooflineTiming, pool: Pool, log: PowerLog, index: int) -> tuple[float, float]:
    """Time [s] and dynamic energy [J] of the steps of an interval, at their simulated length."""
    activity = log.activity
    length_s = float(activity.length_s[index])
    before = activity.running[index - 1] if index and activity.output[index - 1] else activity.running[index]
    n = max(1, round(0.5 * float(before + activity.running[index])))
    steps = float(activity.output[index]) * length_s / n
    kv = float(activity.kv[index])
    context = 0.0 if np.isnan(kv) else kv  # of all sequences together
    cost = timing.step(n, 0, 0)
    time_s = steps * (cost.fixed_s + cost.tau * context)
    joules = steps * (cost.fixed_j + cost.eps * context)
    prompt = float(activity.prompt[index]) * length_s
    if prompt >= 1.0:
        chunk = timing.step(0, min(_CHUNK, max(1, round(prompt))), 1)
        chunks = prompt / min(_CHUNK, max(1, round(prompt)))
        time_s, joules = time_s + chunks * chunk.fixed_s, joules + chunks * chunk.fixed_j
    return time_s, joules


def _idle_w(busy: Floats, pool: Pool) -> Floats:
    """Power of an idle replica in each second [W]: less once its xPUs have been without work for a while."""
    xpu, tp = pool.xpu, pool.tp
    if xpu.sleep_w is None or xpu.standby_s is None:
        return np.full(len(busy), xpu.idle_w * tp)
    seconds = np.arange(len(busy), dtype=float)
    # before the first work a log is taken to begin long after the last
    last = np.maximum.accumulate(np.where(busy > 0.0, seconds + busy, -np.inf))
    awake = seconds - last < xpu.standby_s
    return np.where(awake, xpu.idle_w, xpu.sleep_w) * tp


def idle_constants(log: PowerLog, pool: Pool) -> dict[str, float]:
    """Idle power of an xPU as a log shows it: `idle_w`, and `standby_s` and `sleep_w` if it falls once work is over.

    Values in W and s; empty where no work is followed by at least ten idle seconds.
    """
    busy, _ = simulate(log, pool)
    starts = np.flatnonzero((busy[:-1] > 0.0) & (busy[1:] == 0.0)) + 1
    pauses = []
    for start in starts.tolist():
        after = np.flatnonzero(busy[start:] > 0.0)
        pause = log.gpu_w[start : start + int(after[0]) if len(after) else len(busy)] / pool.tp
        if len(pause) >= _LEAST_PAUSE:
            pauses.append(pause)
    if not pauses:
        return {}
    settled = [pause[_SETTLING:] for pause in pauses]  # what is left of the work has gone
    awake = float(np.median([pause[: _LEAST_PAUSE - _SETTLING] for pause in settled]))
    asleep = float(np.median([pause[-1] for pause in settled]))
    if asleep > _FALLEN * awake:
        return {"idle_w": float(np.median(np.concatenate(settled)))}
    falls = [np.flatnonzero(pause < 0.5 * (awake + asleep)) for pause in settled]
    lengths = [float(fall[0]) + _SETTLING for fall in falls if len(fall)]
    return {"idle_w": awake, "standby_s": float(np.median(lengths)), "sleep_w": asleep}


@dataclass(frozen=True, slots=True)
class PowerSource:
    """Busy seconds of a log, as `scenarios.fitting` compares them."""

    name: str
    log: PowerLog
    pool: Pool

    @property
    def tp(self) -> int:
        """See `Source`; links are not fitted to power."""
        return 1

    def residuals(self, xpu: XPU) -> Floats:
        """See `Source`: a residual a second in which requests ran all the time."""
        simulated, measured = self._busy(xpu)
        return np.log(simulated / measured)

    def errors(self, xpu: XPU, held_out: bool) -> dict[str, float]:
        """See `Source`: mean signed and absolute."""
        simulated, measured = self._busy(xpu)
        off = simulated / measured - 1.0
        return {"power of busy seconds, mean": float(off.mean()), "mean absolute": float(np.abs(off).mean())}

    def _busy(self, xpu: XPU) -> tuple[Floats, Floats]:
        busy, simulated = simulate(self.log, replace(self.pool, xpu=xpu))
        chosen = busy >= _BUSY_SHARE
        chosen[1:] &= busy[:-1] >= _BUSY_SHARE  # seconds in which work begins depend on the clocks
        chosen[:-1] &= busy[1:] >= _BUSY_SHARE
        if not chosen.any():
            raise InputError("power", self.name, "a log in which requests run for three seconds on end")
        return simulated[chosen], self.log.gpu_w[chosen]

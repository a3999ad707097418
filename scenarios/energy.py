"""Measured energy of full batches against the simulator's: a batch of equal requests on an otherwise idle engine.

Energy is power times time, and software differs in speed more than in power. Where a file knows the time of a step, the
energy at that pace is compared too: the simulated work at the simulated static power over the measured time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis.agreement import Section, beside
from scenarios.deployment import Requests, plain_keys, pool_of, serve, xpu_named
from scenarios.table_file import Row, need, read_table
from sim.errors import InputError
from sim.fleet.spec import Pool
from sim.hardware import catalogue

#: Prompt tokens where the file has no column for them: of the order of chat prompts in ShareGPT [assumed].
DEFAULT_PROMPT = 200
_FIELDS = {
    "model": ("model", "Model"),
    "xpu": ("xpu", "hardware", "GPU"),
    "tp": ("tp", "TP", "tensor_parallel"),
    "pp": ("pp", "PP"),
    "precision": ("precision",),
    "batch": ("batch", "batch_size", "Avg BS (reqs)"),
    "prompt": ("prompt", "prompt_tokens", "prompt_size"),
    "output": ("output", "output_tokens", "token_size", "Avg Output Tokens"),
    "joules_per_request": ("joules_per_request", "Energy/req (J)"),
    "joules_per_token": ("joules_per_token",),
    "power_fraction": ("power_fraction", "average_power"),
    "step_ms": ("step_ms", "token_time"),
    "step_s": ("step_s", "Avg TPOT (s)"),
}
_MEASURES = "joules_per_request, joules_per_token, or power_fraction with step_ms or step_s"
#: What is compared: energy per output token, the same at the measured pace, and the time of a step.
METRICS = ("joules_per_token", "joules_per_token_at_pace", "step_s")


class Case(NamedTuple):
    """What was run: names as the file has them; `decode_only` if the energy is that of decode steps alone."""

    model: str
    xpu: str
    tp: int
    precision: str
    batch: int
    prompt: int
    output: int
    decode_only: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """One case beside its simulation.

    Attributes:
        case: what was run, names as in the catalogue.
        rows: measurements of it in the file; their mean counts.
        errors: METRICS as `beside` sections, those in METRICS that need a step's time only where the file knows it.
    """

    case: Case
    rows: int
    errors: Mapping[str, Section]


@dataclass(slots=True)
class Energies:
    """A whole file.

    Attributes:
        cases: what was compared.
        left_out: rows that were not, by (reason, name).
    """

    cases: list[Compared]
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)

    def reasons(self) -> list[str]:
        """Why rows were left out, and how many, in words."""
        lines = []
        for reason in dict.fromkeys(reason for reason, _ in self.left_out):
            names = {name: count for (why, name), count in self.left_out.items() if why == reason}
            rows = sum(names.values())
            lines.append(f"{rows} row{'s' * (rows != 1)}: {reason} ({', '.join(sorted(names))})")
        return lines


def compare_energy(
    path: Path,
    given: Mapping[str, Any],
    columns: Mapping[str, str] | None = None,
    prompt: int | None = None,
    search: Sequence[Path] = (),
) -> Energies:
    """Simulate every case of a file.

    Args:
        path: CSV with model, xpu, batch, output tokens and an energy; the other fields are optional.
        given: the user's own keys of the pool, for the whole file.
        columns: column by field.
        prompt: prompt tokens where the file does not have them; None takes `DEFAULT_PROMPT`.
        search: further folders of the catalogue.

    Raises:
        InputError: something in the file cannot be used, or no row of it can be simulated.
    """
    rows = read_table(path, _FIELDS, columns or {})
    need(rows, [name for name in ("model", "xpu", "batch", "output") if name not in given], path)
    names = _Names(tuple(search))
    energies = Energies([])
    measured: dict[Case, list[tuple[float, float]]] = {}
    for row in rows:
        case = _case(row, given, prompt or DEFAULT_PROMPT, names)
        if isinstance(case, Case):
            measured.setdefault(case, []).append(_measured(row, case, names))
        else:
            energies.left_out[case] += 1
    if not measured:
        accepted = f"a file with at least one row that can be simulated ({'; '.join(energies.reasons())})"
        raise InputError("energy", str(path), accepted)
    for case, values in measured.items():
        joules, step_s = np.mean(values, axis=0).tolist()
        errors = _compared(joules, step_s, case, given, search)
        energies.cases.append(Compared(case, len(values), errors))
    return energies


class _Names:
    """Looks names up in the catalogue, each once."""

    def __init__(self, search: tuple[Path, ...]) -> None:
        self.xpu_id = cache(lambda hint: xpu_named(hint, search))
        self.xpu = cache(lambda name: catalogue.xpu(name, search))
        self.model_id = cache(lambda name: self._model(name, search))

    @staticmethod
    def _model(name: str, search: tuple[Path, ...]) -> str | None:
        """Id of a model, or None where the catalogue has none of that name."""
        try:
            return catalogue.model(name, search).id
        except InputError as error:
            if error.key == "model":
                return None
            raise


def _case(row: Row, given: Mapping[str, Any], prompt: int, names: _Names) -> Case | tuple[str, str]:
    """What a row ran, or why it cannot be simulated, with the name at fault."""
    asked = str(given["model"]) if "model" in given else row.text("model")
    model = names.model_id(asked)
    if model is None:
        return "model not in the catalogue", asked
    if "pp" in row and row.whole("pp") > 1:
        return "pipeline parallel", model
    if "xpu" in given:
        xpu = str(given["xpu"])
    else:
        try:
            xpu = names.xpu_id(row.text("xpu"))
        except InputError as error:
            if error.key != "xpu":
                raise  # the entry itself is malformed
            return "xpu not in the catalogue", row.text("xpu")
    peaks = names.xpu(xpu).peak_flops
    precision = row.text("precision").lower() if "precision" in row else "bf16" if "bf16" in peaks else "fp16"
    return Case(
        model,
        xpu,
        int(given.get("tp", 0)) or (row.whole("tp") if "tp" in row else 1),
        str(given.get("precision", precision)),
        max(1, round(row.positive("batch"))),
        row.whole("prompt") if "prompt" in row else prompt,
        max(1, round(row.positive("output"))),
        "power_fraction" in row and "joules_per_request" not in row and "joules_per_token" not in row,
    )


def _measured(row: Row, case: Case, names: _Names) -> tuple[float, float]:
    """Measured energy of all xPUs per output token [J], and time of a step [s] or NaN."""
    step_s = row.positive("step_s") if "step_s" in row else float("nan")
    if "step_ms" in row:
        step_s = row.positive("step_ms") * 1e-3
    if "joules_per_request" in row:
        return row.positive("joules_per_request") / row.positive("output"), step_s
    if "joules_per_token" in row:
        return row.positive("joules_per_token"), step_s
    if "power_fraction" not in row or np.isnan(step_s):
        raise InputError("columns", None, f"a column for {_MEASURES}", row.where)
    power_w = row.positive("power_fraction") * names.xpu(case.xpu).tdp_w * case.tp
    return power_w * step_s / case.batch, step_s


def _compared(
    joules: float, step_s: float, case: Case, given: Mapping[str, Any], search: Sequence[Path]
) -> dict[str, Section]:
    """A case beside the same batch simulated, all its requests sent at once."""
    pool = _pool(case, given, search)
    size = np.full(case.batch, 1, dtype=np.int64)
    with plain_keys(given, None):
        result = serve(pool, Requests(np.zeros(case.batch), size * case.prompt, size * case.output))
    column = result.requests
    spent, time, tokens = float(column["energy_j"].sum()), result.pools[0].busy_s, case.output
    if case.decode_only:  # all prompts are one step, whose tokens are the first ones
        spent -= float(column["energy_prefill_j"].sum())
        time, tokens = float(column["decode_s"].max()), case.output - 1
    if not tokens:
        raise InputError("output", case.output, "at least 2 tokens where only decoding was measured")
    static_w = pool.xpu.power.static_w * pool.tp
    work = (spent - static_w * time) / tokens  # of a step
    errors = {"joules_per_token": beside(joules, spent / tokens / case.batch)}
    if not np.isnan(step_s):
        errors["joules_per_token_at_pace"] = beside(joules, (work + static_w * step_s) / case.batch)
        errors["step_s"] = beside(step_s, time / tokens)
    return errors


def _pool(case: Case, given: Mapping[str, Any], search: Sequence[Path]) -> Pool:
    # what was measured went through, even beyond the context that a model is made for
    longest = case.prompt + case.output
    budget = case.batch * case.prompt if case.decode_only else 2048
    engine = {
        "max_num_seqs": case.batch,
        "max_num_batched_tokens": max(budget, case.batch),
        "max_model_len": max(2, longest),
    }
    stated = {**case._asdict(), "engine": engine}
    return pool_of({key: stated[key] for key in ("model", "xpu", "tp", "precision", "engine")}, given, search)

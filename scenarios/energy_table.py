"""Files of measured energy: what each row ran, what it took, and at what pace."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scenarios.deployment import xpu_named
from scenarios.table_file import Row, need, read_table
from sim.errors import InputError
from sim.hardware import catalogue

#: Prompt tokens where the file has no column for them: of the order of chat prompts in ShareGPT [assumed].
DEFAULT_PROMPT = 200
_FIELDS = {
    "model": ("model", "Model", "model_id"),
    "xpu": ("xpu", "hardware", "GPU", "gpu_model"),
    "tp": ("tp", "TP", "tensor_parallel", "num_gpus"),
    "pp": ("pp", "PP", "pipeline_parallel"),
    "precision": ("precision", "weight_precision", "dtype"),
    "batch": ("batch", "batch_size", "Avg BS (reqs)", "avg_batch_size"),
    "max_num_seqs": ("max_num_seqs",),
    "prompt": ("prompt", "prompt_tokens", "prompt_size", "avg_input_len"),
    "output": ("output", "output_tokens", "token_size", "Avg Output Tokens", "avg_output_len"),
    "joules_per_request": ("joules_per_request", "Energy/req (J)", "energy_per_request_joules"),
    "joules_per_token": ("joules_per_token", "energy_per_token_joules"),
    "power_w": ("power_w", "avg_power_watts"),
    "power_fraction": ("power_fraction", "average_power"),
    "step_ms": ("step_ms", "token_time", "mean_itl_ms"),
    "step_s": ("step_s", "Avg TPOT (s)"),
    "tokens_per_s": ("tokens_per_s", "Token tput (tok/s)", "output_throughput_tokens_per_sec"),
    "stack": ("stack",),
    "sampling": ("sampling", "task"),
}
#: What sorts all logits to sample. ML.ENERGY names tasks: chat samples at temperature 0.8, top_p 0.95; code is greedy.
#: Source: clients of its leaderboard v2, benchmark/llm_text_generation (Apache-2.0).
_SORTED = ("top_p", "top_k", "llm-chat", "mllm-chat")
_MEASURES = "joules_per_request, joules_per_token, or power_w or power_fraction with tokens_per_s, step_ms or step_s"
_FORMATS = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float8": "fp8", "nvfp4": "fp4", "mxfp4": "fp4"}
_MOST_POWER = 1.5  #: times the limit of the xPUs: what would draw more is in other units
_LEAST_SHARE = 0.6  #: of the energy with a shorter prompt, below which a measurement is suspected
_MOST_WAIT = 20.0  #: times between tokens over times of a step: prompts and clients wait, but not by this much


class Case(NamedTuple):
    """What was run: names as the catalogue has them.

    `decode_only` if the energy is that of decode steps alone; `sorted_sampling` if every step sorts the logits.
    """

    model: str
    xpu: str
    tp: int
    precision: str
    batch: int
    prompt: int
    output: int
    decode_only: bool
    stack: str | None
    pp: int = 1
    sorted_sampling: bool = False


class Measure(NamedTuple):
    """What was measured: energy of all xPUs per output token [J], and time a token of the replica [s] or NaN."""

    joules: float
    token_s: float


@dataclass(slots=True)
class EnergyTable:
    """A whole file.

    Attributes:
        measured: measurements of each case.
        left_out: rows that cannot be simulated, by (reason, name).
    """

    measured: dict[Case, list[Measure]]
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)

    def means(self) -> dict[Case, Measure]:
        """Mean of the measurements of each case."""
        return {case: Measure(*np.mean(values, axis=0).tolist()) for case, values in self.measured.items()}

    def suspected(self) -> set[Case]:
        """Cases that took far less than the same batch with a shorter prompt: more context never takes less."""
        shorter: dict[tuple[object, ...], float] = {}
        found = set()
        for case, measure in sorted(self.means().items(), key=lambda pair: pair[0].prompt):
            alike = case._replace(prompt=0)
            if measure.joules < _LEAST_SHARE * shorter.get(alike, 0.0):
                found.add(case)
            shorter[alike] = max(measure.joules, shorter.get(alike, 0.0))
        return found

    def reasons(self) -> list[str]:
        """Why rows were left out, and how many, in words."""
        lines = []
        for reason in dict.fromkeys(reason for reason, _ in self.left_out):
            names = {name: count for (why, name), count in self.left_out.items() if why == reason}
            rows = sum(names.values())
            lines.append(f"{rows} row{'s' * (rows != 1)}: {reason} ({', '.join(sorted(names))})")
        return lines


def read_energy(
    path: Path,
    given: Mapping[str, Any],
    columns: Mapping[str, str] | None = None,
    prompt: int | None = None,
    search: Sequence[Path] = (),
) -> EnergyTable:
    """Read a file.

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
    need(rows, [name for name in ("model", "xpu", "output") if name not in given], path)
    known = set(rows[0].names)
    if "max_num_seqs" not in known and not ("tokens_per_s" in known and {"step_ms", "step_s"} & known):
        need(rows, ["batch"], path)
    names = _Names(tuple(search))
    table = EnergyTable({})
    for row in rows:
        case = _case(row, given, prompt or DEFAULT_PROMPT, names)
        if isinstance(case, Case):
            table.measured.setdefault(case, []).append(_measure(row, case, names))
        else:
            table.left_out[case] += 1
    if not table.measured:
        accepted = f"a file with at least one row that can be simulated ({'; '.join(table.reasons())})"
        raise InputError("energy", str(path), accepted)
    return table


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
    stack = str(given["stack"]) if "stack" in given else row.text("stack") if "stack" in row else None
    return Case(
        model,
        xpu,
        int(given.get("tp", 0)) or (row.whole("tp") if "tp" in row else 1),
        str(given.get("precision", _FORMATS.get(precision, precision))),
        max(1, round(_batch(row))),
        row.whole("prompt") if "prompt" in row else prompt,
        max(1, round(row.positive("output"))),
        "power_fraction" in row and not any(key in row for key in ("joules_per_request", "joules_per_token")),
        stack,
        int(given.get("pp", 0)) or (row.whole("pp") if "pp" in row else 1),
        "sampling" in row and row.text("sampling") in _SORTED,
    )


def _batch(row: Row) -> float:
    """Sequences that decode together: as the row has them, by Little's law, or as many as the engine takes."""
    if "batch" in row:
        return row.positive("batch")
    if "tokens_per_s" in row and not math.isnan(_step_s(row)):
        return row.positive("tokens_per_s") * _step_s(row)
    return row.positive("max_num_seqs" if "max_num_seqs" in row else "batch")


def _step_s(row: Row) -> float:
    """Time between two tokens of a sequence [s], or NaN."""
    step_s = row.positive("step_s") if "step_s" in row else float("nan")
    if "step_ms" not in row:
        return step_s
    from_ms = row.positive("step_ms") * 1e-3
    if step_s and abs(step_s / from_ms - 1.0) > 0.01:
        raise InputError(row.names["step_ms"], row.text("step_ms"), f"{step_s * 1e3:g}, as the row's step_s", row.where)
    return from_ms


def _measure(row: Row, case: Case, names: _Names) -> Measure:
    """Measured energy and pace; refuses what cannot be in the units that the columns name."""
    step_s = _step_s(row)
    token_s = step_s / case.batch
    if "tokens_per_s" in row:
        token_s = 1.0 / row.positive("tokens_per_s")
        if not math.isnan(step_s) and not 1.0 / _MOST_WAIT < token_s * case.batch / step_s < _MOST_WAIT:
            accepted = f"about {case.batch / step_s:.3g} tokens/s, as the batch and the time of a step give"
            raise InputError(row.names["tokens_per_s"], row.text("tokens_per_s"), accepted, row.where)
    limit_w = names.xpu(case.xpu).tdp_w * case.tp * case.pp
    joules = _joules(row, token_s, limit_w)
    if joules / token_s > _MOST_POWER * limit_w:  # never where the pace is unknown
        accepted = (
            f"at most {limit_w:g} W for {case.tp * case.pp} x {case.xpu}: joules, seconds and xPUs of one replica"
        )
        raise InputError("energy", f"{joules:.4g} J/token, which is {joules / token_s:.4g} W", accepted, row.where)
    return Measure(joules, token_s)


def _joules(row: Row, token_s: float, limit_w: float) -> float:
    """Energy of all xPUs per output token [J], from whatever the row has."""
    per_token = row.positive("joules_per_token") if "joules_per_token" in row else float("nan")
    if "joules_per_request" in row:
        joules = row.positive("joules_per_request") / row.positive("output")
        if per_token and abs(per_token / joules - 1.0) > 0.1:
            accepted = f"about {joules:.4g}, as the joules of a request give"
            raise InputError(row.names["joules_per_token"], row.text("joules_per_token"), accepted, row.where)
        return joules
    if "joules_per_token" in row:
        return per_token
    power = "power_w" if "power_w" in row else "power_fraction"
    if power not in row or math.isnan(token_s):
        raise InputError("columns", None, f"a column for {_MEASURES}", row.where)
    return row.positive(power) * (limit_w if power == "power_fraction" else 1.0) * token_s

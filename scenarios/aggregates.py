"""Runs known only by their means: one deployment under a few stages of constant rate, simulated from what is recorded.

Requests draw their prompts from a small set, so after the first use of each nearly the whole prompt is found in the
prefix cache; what remains is computed anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.agreement import Section, beside
from scenarios.deployment import Requests, plain_keys, pool_of, serve, xpu_named
from scenarios.table_file import Row, need, read_table
from scenarios.vllm_meta import graph_sizes
from sim.errors import InputError
from sim.fleet.spec import Pool

METRICS = ("e2e_s", "itl_s", "ttft_s")
WHOLE = -1  #: stage index of the row that covers the whole run
ARRIVALS = ("poisson", "constant")
_MEANS = {"e2e_s": "e2e_mean", "itl_s": "itl_mean", "ttft_s": "ttft_mean"}  # in ms
_FIELDS = (
    *("experiment", "model", "hardware", "precision", "tp", "max_num_batched_tokens", "stage_index"),
    *_MEANS.values(),
    *("question_len", "system_prompt_len", "output_len", "n_sys_prompts", "users_per_prompt", "stages"),
)
_STAGE = re.compile(r"\s*([0-9.]+)\s*rps\s*x\s*([0-9.]+)\s*s\s*")
_ACCEPTED = "stages such as 2.5rps x600s;6rps x600s"
_MS = 1e-3
_BLOCK = 16  #: tokens a block: prefixes are found block by block
#: Most sequences at once: not recorded, and far above what these rates keep in flight.
_MAX_SEQS = 256
#: Time in the HTTP server and tokenizer before the engine, which clients see and engines do not [s]. Derived: the mean
#: that the simulated TTFT of 11 runs of vLLM 0.15 on H100 lacked without it, so those runs are no test of it.
_FRONT_END_S = 0.0065


@dataclass(frozen=True, slots=True)
class Compared:
    """One row beside its simulation.

    Attributes:
        experiment, model, xpu, stage: what it is; stage `WHOLE` is the whole run.
        load: its rates, as the file has them.
        errors: E2E, ITL and TTFT as `beside` sections.
        only_stage: True if the run has no other stage, so that this row repeats the whole run's.
    """

    experiment: str
    model: str
    xpu: str
    stage: int
    load: str
    errors: Mapping[str, Section]
    only_stage: bool


@dataclass(frozen=True, slots=True)
class _Stage:
    rate: float
    duration_s: float


def compare_aggregates(
    path: Path,
    given: Mapping[str, Any],
    arrivals: str = "poisson",
    seed: int = 0,
    search: Sequence[Path] = (),
) -> list[Compared]:
    """Simulate every run of a file.

    Args:
        path: CSV with a row a run and stage; times in ms.
        given: the user's own keys of the pool; they replace what the file states.
        arrivals: how requests arrive within a stage, which such files do not record: poisson | constant.
        seed: of arrivals and of the choice of prompts.
        search: further folders of the catalogue.

    Raises:
        InputError: something in the file cannot be used; the message names the line.
    """
    if arrivals not in ARRIVALS:
        raise InputError("arrivals", arrivals, " | ".join(ARRIVALS))
    rows = read_table(path, {name: (name,) for name in _FIELDS}, {})
    need(rows, _FIELDS, path)
    compared: list[Compared] = []
    for _, group in groupby(rows, key=lambda row: row.text("experiment")):
        compared += _run(list(group), given, arrivals, seed, search)
    return compared


def _run(
    rows: Sequence[Row], given: Mapping[str, Any], arrivals: str, seed: int, search: Sequence[Path]
) -> Iterator[Compared]:
    """The rows of one run, simulated together: its stages follow one another."""
    row = rows[0]
    pool = _pool(row, given, search)
    stages = _stages(row)
    by_stage = {_stage_index(row, stages): row for row in rows}
    outputs = [_realised_output(by_stage.get(index, row)) for index in range(len(stages))]
    requests, stage_of = _requests(row, stages, outputs, arrivals, seed)
    with plain_keys(given, row.where):
        column = serve(pool, requests).requests
    for index, each in by_stage.items():
        mine = np.ones(len(stage_of), dtype=bool) if index == WHOLE else stage_of == index
        gaps = int((column["output_tokens"][mine] - 1).sum())
        means = {
            "e2e_s": float(column["e2e_s"][mine].mean()),
            "ttft_s": float(column["ttft_s"][mine].mean()),
            "itl_s": float(column["decode_s"][mine].sum()) / gaps if gaps else float("nan"),
        }
        yield Compared(
            each.text("experiment"),
            pool.model.id,
            f"{pool.replicas * pool.xpus_per_replica} x {pool.xpu.id}",
            index,
            each.text("stages") if index == WHOLE else f"{stages[index].rate:g}rps x{stages[index].duration_s:g}s",
            {name: beside(each.positive(_MEANS[name]) * _MS, means[name]) for name in METRICS},
            index != WHOLE and len(stages) == 1,
        )


def _pool(row: Row, given: Mapping[str, Any], search: Sequence[Path]) -> Pool:
    """The deployment of a row. Scheduling and graphs are those of vLLM 0.15, which such records come from."""
    stated: dict[str, Any] = {
        "model": row.text("model"),
        "tp": row.whole("tp"),
        "precision": row.text("precision").lower(),
        "engine": {
            "max_num_seqs": _MAX_SEQS,
            "max_num_batched_tokens": row.whole("max_num_batched_tokens"),
            "async_scheduling": True,
            "padding": graph_sizes(_MAX_SEQS),
            "front_end_s": _FRONT_END_S,
        },
    }
    if "xpu" not in given:
        try:
            stated["xpu"] = xpu_named(row.text("hardware"), search, largest=True)
        except InputError as error:
            raise InputError("hardware", error.value, error.accepted, row.where) from None
    pool = pool_of(stated, given, search, row.where)
    # clients of a server that state no sampling get what comes with the model
    sampling = {
        name: getattr(pool.model, name)
        for name in ("sorted_sampling", "penalized_sampling")
        if f"engine.{name}" not in given
    }
    return replace(pool, engine=replace(pool.engine, **sampling))


def _stages(row: Row) -> list[_Stage]:
    text = row.text("stages")
    stages = []
    for part in text.split(";"):
        found = _STAGE.fullmatch(part)
        try:
            stage = _Stage(float(found[1]), float(found[2])) if found else None
        except ValueError:
            stage = None
        if stage is None or not (stage.rate > 0.0 and stage.duration_s > 0.0):
            raise InputError("stages", text, _ACCEPTED, row.where)
        stages.append(stage)
    return stages


def _stage_index(row: Row, stages: Sequence[_Stage]) -> int:
    index = int(row.any_number("stage_index"))
    if not WHOLE <= index < len(stages):
        accepted = f"{WHOLE} for the whole run, or the number of one of its {len(stages)} stages, from 0"
        raise InputError("stage_index", index, accepted, row.where)
    return index


def _realised_output(row: Row) -> float:
    """Mean output tokens: 1 + (E2E - TTFT) / ITL. Some answers end early, so it is below what was asked for."""
    e2e, itl, ttft = (row.positive(name) for name in _MEANS.values())
    output = 1.0 + (e2e - ttft) / itl
    if not 1.0 <= output <= 2.0 * row.whole("output_len"):
        accepted = f"times that give about output_len ({row.whole('output_len')}) tokens; these give {output:.4g}"
        raise InputError(_MEANS["e2e_s"], e2e, accepted, row.where)
    return output


def _requests(
    row: Row, stages: Sequence[_Stage], outputs: Sequence[float], arrivals: str, seed: int
) -> tuple[Requests, npt.NDArray[np.int64]]:
    """All requests of a run, and the stage of each."""
    rng = np.random.default_rng(seed)
    start, times, lengths, stage_of = 0.0, [], [], []
    for index, (stage, output) in enumerate(zip(stages, outputs)):
        count = max(1, round(stage.rate * stage.duration_s))
        even = (np.arange(count) + 0.5) / count
        # given their number, Poisson arrivals are uniform: the rate is met exactly, as load generators do
        at = np.sort(rng.random(count)) if arrivals == "poisson" else even
        times.append(start + stage.duration_s * at)
        lengths.append(np.diff(np.floor(np.arange(count + 1) * output)).astype(np.int64))  # whole, with this mean
        stage_of.append(np.full(count, index))
        start += stage.duration_s
    total = sum(map(len, times))
    prompt = row.whole("system_prompt_len", 0) + row.whole("question_len")
    requests = Requests(
        np.concatenate(times), np.full(total, prompt), np.concatenate(lengths), _cached(row, prompt, total, rng)
    )
    return requests, np.concatenate(stage_of)


def _cached(row: Row, prompt: int, total: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Prompt tokens found in the prefix cache: none at the first use of a system prompt, the system prompt's whole
    blocks at the first use of a question, and then all but the last one to two blocks, 16 + prompt mod 16 tokens."""
    questions = row.whole("users_per_prompt")
    pick = rng.integers(row.whole("n_sys_prompts") * questions, size=total)
    cached = np.full(total, max(0, prompt - _BLOCK - prompt % _BLOCK))
    shared = min(row.whole("system_prompt_len", 0), prompt - 1) // _BLOCK * _BLOCK
    cached[np.unique(pick, return_index=True)[1]] = shared
    cached[np.unique(pick // questions, return_index=True)[1]] = 0
    return cached

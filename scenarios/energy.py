"""Measured energy of full batches against the simulator's: a batch of equal requests on an otherwise idle engine.

Energy is power times time, and software differs in speed more than in power. Where a file knows its pace, that counts:
the simulated work, and the simulated static power over the measured time. The energy at the simulated pace, with the
overheads of a serving stack if one is named, stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from analysis.agreement import Section, beside
from scenarios.deployment import Requests, plain_keys, pool_of, serve
from scenarios.energy_table import DEFAULT_PROMPT, Case, Measure, read_energy
from sim.errors import InputError
from sim.fleet.spec import Pool
from sim.hardware.xpu import XPU

__all__ = ["DEFAULT_PROMPT", "METRICS", "PACES", "Case", "Compared", "Energies", "compare_case", "compare_energy"]

PACES = ("measured", "simulated")
_NO_LIMIT_W = 1e9
#: What is compared: energy per output token as the pace asked for gives it, at either pace, and the time of a step.
METRICS = ("joules_per_token", "joules_per_token_at_pace", "joules_per_token_simulated", "step_s")


@dataclass(frozen=True, slots=True)
class Compared:
    """One case beside its simulation.

    Attributes:
        case: what was run, names as in the catalogue.
        rows: measurements of it in the file; their mean counts.
        pace: whether `joules_per_token` is at the measured or at the simulated pace.
        suspected: True if the file contradicts itself here (`EnergyTable.suspected`).
        errors: METRICS as `beside` sections, those in METRICS that need a pace only where the file knows it.
    """

    case: Case
    rows: int
    pace: str
    suspected: bool
    errors: Mapping[str, Section]


@dataclass(frozen=True, slots=True)
class Energies:
    """A whole file: what was compared, and why other rows were left out."""

    cases: list[Compared]
    left_out: list[str]

    def trusted(self) -> list[Mapping[str, Section]]:
        """Errors of the cases that are not suspected."""
        return [each.errors for each in self.cases if not each.suspected]


def compare_energy(
    path: Path,
    given: Mapping[str, Any],
    columns: Mapping[str, str] | None = None,
    prompt: int | None = None,
    search: Sequence[Path] = (),
    pace: str = "measured",
) -> Energies:
    """Simulate every case of a file.

    Args:
        path, given, columns, prompt, search: as in `read_energy`.
        pace: one of PACES; where the file knows none, the simulated one counts.

    Raises:
        InputError: something in the file cannot be used, or no row of it can be simulated.
    """
    table = read_energy(path, given, columns, prompt, search)
    suspected = table.suspected()
    cases = []
    for case, measure in table.means().items():
        errors = compare_case(case, measure, pool_for(case, given, search), pace, given)
        used = PACES[1] if isnan(measure.token_s) else pace
        cases.append(Compared(case, len(table.measured[case]), used, case in suspected, errors))
    return Energies(cases, table.reasons())


def compare_case(
    case: Case, measure: Measure, pool: Pool, pace: str = PACES[0], given: Mapping[str, Any] | None = None
) -> dict[str, Section]:
    """A case beside the same batch simulated on a pool, all its requests sent at once; by METRICS."""
    spent, time, tokens = _simulated(case, pool, given or {})
    simulated = beside(measure.joules, spent / tokens)
    if isnan(measure.token_s):
        return {METRICS[0]: simulated, METRICS[2]: simulated}
    static_w = pool.xpu.power.static_w * pool.xpus_per_replica
    limit_w = pool.xpu.tdp_w * pool.xpus_per_replica
    dynamic = (spent - static_w * time) / tokens
    if measure.token_s > time / tokens:  # gaps give kernels room below the limit, which holds means
        free_j, free_s, _ = _simulated(case, replace(pool, xpu=without_limit(pool.xpu)), given or {})
        room = (limit_w - static_w) * (measure.token_s - time / tokens)
        dynamic = max(dynamic, min((free_j - static_w * free_s) / tokens, dynamic + room))
    held = beside(measure.joules, min(dynamic + static_w * measure.token_s, limit_w * measure.token_s))
    return {
        METRICS[0]: held if pace == PACES[0] else simulated,
        METRICS[1]: held,
        METRICS[2]: simulated,
        METRICS[3]: beside(measure.token_s * case.batch, time / tokens * case.batch),
    }


def without_limit(xpu: XPU) -> XPU:
    """The same chip as it would be if nothing limited its power."""
    return replace(xpu, tdp_w=_NO_LIMIT_W, power=replace(xpu.power, peak_w=None))


def _simulated(case: Case, pool: Pool, given: Mapping[str, Any]) -> tuple[float, float, int]:
    """Energy [J] and time [s] of the output tokens of a whole batch, and how many they are."""
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
    return spent, time, tokens * case.batch


def pool_for(case: Case, given: Mapping[str, Any], search: Sequence[Path]) -> Pool:
    """The pool that a case ran on."""
    # what was measured went through, even beyond the context that a model is made for
    longest = case.prompt + case.output
    budget = case.batch * case.prompt if case.decode_only else 2048
    engine = {
        "max_num_seqs": case.batch,
        "max_num_batched_tokens": max(budget, case.batch),
        "max_model_len": max(2, longest),
        "sorted_sampling": case.sorted_sampling,
    }
    stated = {key: getattr(case, key) for key in ("model", "xpu", "tp", "pp", "precision")} | {"engine": engine}
    if case.stack is not None:
        stated["stack"] = case.stack
    return pool_of(stated, given, search)

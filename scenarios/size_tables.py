"""What `hybridfleet size` found: of one model and of several, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scenarios.size_inference import ServingPlan
from scenarios.size_inputs import JOBS, SizeInputs
from scenarios.size_training import JobPlan
from scenarios.validation_tables import Table
from sim.errors import InputError
from sim.hardware.model import Model
from sim.units import GB, JOULES_PER_KWH

NAMES = {"training": "training", "fine_tuning": "full fine-tuning", "lora": "LoRA", "inference": "inference"}
NOTHING, UNKNOWN = "–", "unknown"
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Sized:
    """One model on one kind of xPU.

    Attributes:
        model, xpu: which; xpu by id.
        jobs: plans of training, fine-tuning and adapters by name, those that can be done.
        serving: the plan of inference, or None.
        refused: why others are missing, by name.
    """

    model: Model
    xpu: str
    jobs: Mapping[str, JobPlan]
    serving: ServingPlan | None
    refused: Mapping[str, InputError]


def one_model(sized: Sized) -> Table:
    """A row a quantity, a column a job; inference by the day."""
    headings = [f"{sized.model.id} on {sized.xpu}", *NAMES.values()]
    rows: list[list[str]] = []

    def add(
        label: str, of_job: Callable[[JobPlan], object], of_serving: Callable[[ServingPlan], object] | None
    ) -> None:
        cells = [_cell(of_job(sized.jobs[job])) if job in sized.jobs else NOTHING for job in JOBS]
        serving = sized.serving
        cells.append(NOTHING if of_serving is None or serving is None else _cell(of_serving(serving)))
        rows.append([label, *cells])

    add("load [1e9 tokens, or requests/s]", lambda job: job.tokens / 1e9, lambda plan: plan.rate)
    add("arithmetic [1e18 FLOP]", lambda job: job.flops / 1e18, None)
    add("parameters that are trained [1e6]", lambda job: job.trained_params / 1e6, None)
    rows.append([])
    add("weights [GB]", lambda job: job.memory.weights / GB, lambda plan: plan.weights / GB)
    add("gradients [GB]", lambda job: job.memory.gradients / GB, None)
    add("optimizer [GB]", lambda job: job.memory.optimizer / GB, None)
    add("activations of a micro-batch [GB]", lambda job: job.memory.activations / GB, None)
    for kind, label in (("none", "without"), ("full", "with full")):
        add(f"  {label} recomputation [GB]", lambda job, kind=kind: job.activations[kind] / GB, None)  # type: ignore[misc]
    add("KV cache at the load's batch [GB]", _nothing, lambda plan: plan.kv / GB)
    add("  of the fullest batch [GB]", _nothing, lambda plan: plan.kv_full / GB)
    add(
        "on each xPU [GB]",
        lambda job: job.memory.per_xpu / GB,
        lambda plan: (plan.weights + plan.kv_full) / GB / plan.memory_xpus,
    )
    rows.append([])
    add("xPUs that memory asks for", lambda job: job.memory_xpus, lambda plan: plan.memory_xpus)
    add("xPUs that time or load asks for", lambda job: job.load_xpus, lambda plan: plan.xpus)
    add("xPUs", lambda job: job.xpus, lambda plan: plan.xpus)
    add("  of which share a layer", lambda job: job.layout.tp, lambda plan: plan.pool.tp)
    add("time [d]", lambda job: job.seconds / _DAY_S, lambda plan: 1)
    add("energy [kWh]", lambda job: job.account.energy_j / JOULES_PER_KWH, lambda plan: plan.watts * 0.024)
    add(
        "operational CO2e [kg]",
        lambda job: job.account.operational_g / 1e3,
        lambda plan: _daily(plan, plan.operational_g, 1e-3),
    )
    add("embodied CO2e [kg]", lambda job: _embodied(job), lambda plan: _daily(plan, plan.embodied_g, 1e-3))
    add("cost [USD]", lambda job: job.account.usd, lambda plan: plan.usd_per_day)
    rows.append([])
    add("whole nodes", lambda job: job.nodes, lambda plan: plan.nodes)
    add("  to buy [USD]", lambda job: job.capital_usd, lambda plan: plan.capital_usd)
    add("least nodes to begin with", lambda job: job.entry_nodes, lambda plan: plan.entry_nodes)
    add("  to buy [USD]", lambda job: job.entry_usd, lambda plan: plan.entry_usd)
    add("  time on what memory asks for [d]", lambda job: job.least_seconds / _DAY_S, None)
    return headings, rows, 1


def many_models(sized: Sequence[Sized]) -> Table:
    """A row a model: xPUs by job, then what training takes and what it takes to begin."""
    headings = ["model", "1e9 params", *(f"{name}, xPUs" for name in NAMES.values())]
    headings += ["training [d]", "[MWh]", "[t CO2e]", "[USD]", "to begin [USD]", "inference [USD/d]"]
    rows = []
    for row in sizes(sized):
        cells = [row["model"], _cell(row["params"] / 1e9)]
        cells += [_cell(row[f"{name}_xpus"], NOTHING) for name in NAMES]
        keys = ("training_days", "training_mwh", "training_t", "training_usd", "entry_usd", "inference_usd_per_day")
        cells += [_cell(row[key]) for key in keys]
        rows.append(cells)
    return headings, rows, 1


def sizes(sized: Sequence[Sized]) -> list[dict[str, Any]]:
    """A flat row a model, the smallest first."""
    rows = []
    for each in sorted(sized, key=lambda each: each.model.params):
        training, serving = each.jobs.get("training"), each.serving
        account = training.account if training else None
        embodied = account.embodied_g if account else None
        row: dict[str, Any] = {"model": each.model.id, "params": each.model.params}
        row |= {f"{job}_xpus": each.jobs[job].xpus if job in each.jobs else None for job in JOBS}
        row["inference_xpus"] = serving.xpus if serving else None
        row |= {
            "training_days": training.seconds / _DAY_S if training else None,
            "training_mwh": account.energy_j / JOULES_PER_KWH / 1e3 if account else None,
            "training_t": (account.operational_g + embodied[1]) / 1e6 if account and embodied else None,
            "training_usd": account.usd if account else None,
            "entry_usd": training.entry_usd if training else None,
            "inference_usd_per_day": serving.usd_per_day if serving else None,
        }
        rows.append(row)
    return rows


def notes(sized: Sequence[Sized], inputs: SizeInputs) -> list[str]:
    """What a reader of the numbers must know."""
    lines = []
    for each in sized:
        if each.serving is not None and len(sized) == 1:
            lines += _serving_notes(each.serving, inputs)
        for job, error in each.refused.items():
            lines.append(f"{each.model.id}, {NAMES[job]}: {error}")
    mfu = ", ".join(f"{NAMES[job]} {inputs.jobs[job].mfu:g}" for job in JOBS)
    lines.append(
        f"MFU is an input: {mfu}. Activations: {inputs.layout.recomputation} recomputation. Power is "
        f"{inputs.power_share:g} of the xPU's limit and the host's share, times PUE {inputs.site['pue']:g}."
    )
    lines.append("Sources of every default: `hybridfleet list sizings default`; formulas: docs/lifecycle.md.")
    return lines


def _serving_notes(plan: ServingPlan, inputs: SizeInputs) -> list[str]:
    return [
        f"Inference under {inputs.slo}: {plan.replicas} x tp={plan.pool.tp} pp={plan.pool.pp}; goodput of each "
        f"{plan.goodput_rps:.3g} requests/s in runs, {plan.closed.requests_per_s:.3g} in closed form at a batch of "
        f"{plan.closed.batch}; {plan.prompt:.0f} + {plan.output:.0f} tokens a request; {100.0 * plan.oversize:.1f} % "
        "of them are longer than the context, and left out.",
        f"At {plan.rate / plan.replicas:.3g} requests/s each, {100.0 * plan.attainment:.1f} % are within the SLO, at a "
        f"mean batch of {plan.batch:.3g}.",
        f"Per million output tokens: {plan.joules / JOULES_PER_KWH * 1e6:.4g} kWh, "
        f"{_cell(_scaled(plan.usd, 1e6))} USD, {_cell(_scaled(plan.operational_g, 1e3))} kg operational and "
        f"{_cell(_scaled(plan.embodied_g, 1e3))} kg embodied CO2e.",
    ]


def size_json(sized: Sequence[Sized], inputs: SizeInputs) -> dict[str, Any]:
    """Everything, in SI units, for programs."""
    return {"inputs": dict(inputs.values), "slo": inputs.slo, "models": [_json(each) for each in sized]}


def _json(each: Sized) -> dict[str, Any]:
    found: dict[str, Any] = {"model": each.model.id, "xpu": each.xpu, "params": each.model.params}
    for name, job in each.jobs.items():
        embodied = job.account.embodied_g
        found[name] = {
            "tokens": job.tokens,
            "flops": job.flops,
            "mfu": job.mfu,
            "trained_params": job.trained_params,
            "memory_bytes": {
                "weights": job.memory.weights,
                "gradients": job.memory.gradients,
                "optimizer": job.memory.optimizer,
                "activations": job.memory.activations,
                "per_xpu": job.memory.per_xpu,
            },
            "activations_by_recomputation_bytes": job.activations,
            "tp": job.layout.tp,
            "zero": job.layout.zero,
            "xpus": job.xpus,
            "xpus_memory": job.memory_xpus,
            "xpus_load": job.load_xpus,
            "bound": job.bound,
            "time_s": job.seconds,
            "energy_j": job.account.energy_j,
            "operational_g": job.account.operational_g,
            "embodied_g": None if embodied is None else dict(zip(("low", "central", "high"), embodied)),
            "cost_usd": job.account.usd,
            **_capital(job),
        }
    plan = each.serving
    if plan is not None:
        found["inference"] = _serving_json(plan)
    found["refused"] = {job: str(error) for job, error in each.refused.items()}
    return found


def _serving_json(plan: ServingPlan) -> dict[str, Any]:
    return {
        "rate_rps": plan.rate,
        "prompt_tokens": plan.prompt,
        "output_tokens": plan.output,
        "oversize_share": plan.oversize,
        "tp": plan.pool.tp,
        "pp": plan.pool.pp,
        "precision": plan.pool.precision,
        "memory_bytes": {"weights": plan.weights, "kv": plan.kv, "kv_full": plan.kv_full, "kv_room": plan.kv_room},
        "closed_form_rps": plan.closed.requests_per_s,
        "closed_form_batch": plan.closed.batch,
        "goodput_rps": plan.goodput_rps,
        "replicas": plan.replicas,
        "xpus": plan.xpus,
        "xpus_memory": plan.memory_xpus,
        "slo_attainment": plan.attainment,
        "batch": plan.batch,
        "j_per_token": plan.joules,
        "usd_per_token": plan.usd,
        "g_operational_per_token": plan.operational_g,
        "g_embodied_per_token": plan.embodied_g,
        "power_w": plan.watts,
        "usd_per_day": plan.usd_per_day,
        "kg_per_day": plan.kg_per_day,
        **_capital(plan),
    }


def _capital(plan: JobPlan | ServingPlan) -> dict[str, Any]:
    return {
        "nodes": plan.nodes,
        "capital_usd": plan.capital_usd,
        "entry_nodes": plan.entry_nodes,
        "entry_usd": plan.entry_usd,
    }


def _nothing(job: JobPlan) -> str:
    return NOTHING


def _embodied(job: JobPlan) -> float | None:
    return None if job.account.embodied_g is None else job.account.embodied_g[1] / 1e3


def _daily(plan: ServingPlan, a_token: float | None, scale: float) -> float | None:
    """What a token takes, over the output tokens of a day."""
    return _scaled(a_token, plan.rate * (1.0 - plan.oversize) * plan.output * _DAY_S * scale)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _cell(value: object, unknown: str = UNKNOWN) -> str:
    if value is None:
        return unknown
    if isinstance(value, str):
        return value
    assert isinstance(value, int | float)
    if isinstance(value, int) or abs(value) >= 1000.0:
        return f"{value:,.0f}"
    return f"{value:.3g}"

"""How many xPUs a load needs under an SLO: goodput of a replica from simulated runs, and what the fleet takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scenarios.build import build_workload
from scenarios.rate_search import Bracket, halved
from scenarios.schema import Section
from scenarios.size_inputs import SizeInputs, scenario_file
from scenarios.size_training import whole_nodes
from sim.accounting.cost import Rent
from sim.errors import InputError
from sim.fleet.leg import REJECTED
from sim.fleet.spec import Fleet, Pool, Site
from sim.fleet.steady_state import SteadyState, steady_state
from sim.hardware.sizing import weight_bytes_per_xpu
from sim.results import Result
from sim.rng import Streams
from sim.routing import LeastOutstanding
from sim.simulation import run
from sim.units import SECONDS_PER_HOUR

_STEPS = 6  #: of the search for the highest rate: to 2 % of the closed form
_ABOVE = 1.25  #: times the closed form, up to which rates are searched
_WARM = 0.2  #: share of a run's requests that find an engine not yet as full as later ones do
_DAY_S = 24.0 * SECONDS_PER_HOUR
_TURNOVERS = 10  #: times that a run replaces a full batch, at least: shorter ones never fill it
_STAGES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """A load on its replicas.

    Attributes:
        pool: of one replica; its `tp` and `pp` are what was chosen.
        rate: requests that come [1/s]; prompt, output: their mean tokens; oversize: share of those drawn that are
            longer than the model's context, which are left out.
        closed: the steady state that bounds allow, in closed form.
        goodput_rps: highest rate at which a replica meets the SLO for the share asked for [1/s].
        replicas, xpus: what the rate takes; memory_xpus: what one replica takes.
        weights, kv, kv_full, kv_room: bytes of a replica: weights; KV cache, at the ends of requests, of the batch at
            that rate and of the closed form's; all blocks.
        attainment: share of requests within the SLO at the rate each replica gets.
        batch: mean requests there at that rate.
        joules, usd, operational_g, embodied_g: per output token; None where not known.
        watts, usd_per_day, kg_per_day: of all replicas, the last with embodied carbon; None where not known.
        nodes, capital_usd, entry_nodes, entry_usd: as of a `JobPlan`; one begins with one replica.
    """

    pool: Pool
    rate: float
    prompt: float
    output: float
    oversize: float
    closed: SteadyState
    goodput_rps: float
    replicas: int
    xpus: int
    memory_xpus: int
    weights: float
    kv: float
    kv_full: float
    kv_room: float
    attainment: float
    batch: float
    joules: float
    usd: float | None
    operational_g: float | None
    embodied_g: float | None
    watts: float
    usd_per_day: float | None
    kg_per_day: float | None
    nodes: int
    capital_usd: float | None
    entry_nodes: int
    entry_usd: float | None


def plan_serving(pool: Pool, site: Site, price_usd: float | None, inputs: SizeInputs) -> ServingPlan:
    """Size a load.

    Of the degrees of parallelism that hold the model, the one whose closed form serves most requests an xPU and whose
    runs meet the SLO.

    Raises:
        InputError: no number of these xPUs holds the model, or none meets the SLO.
    """
    each, closed, goodput, lengths = best_replica(pool, site, inputs)
    return _plan(each, site, price_usd, closed, goodput, lengths, inputs)


def best_replica(
    pool: Pool, site: Site, inputs: SizeInputs
) -> tuple[Pool, SteadyState, float, tuple[float, float, float]]:
    """The replica that `plan_serving` takes, its steady state, its goodput [1/s] and the mean lengths of requests.

    Raises:
        InputError: no number of these xPUs holds the model, or none meets the SLO.
    """
    prompt, output, oversize = mean_lengths(pool, inputs)
    tpot_s, ttft_s = _bounds(inputs)
    fitting = [(each, steady_state(each, prompt, output, tpot_s, ttft_s)) for each in _fitting(pool, inputs)]
    ranked = sorted(fitting, key=lambda pair: -pair[1].requests_per_s / (pair[0].tp * pair[0].pp))
    for each, closed in ranked:
        if closed.requests_per_s > 0.0:
            goodput = goodput_rps(each, site, closed, inputs)
            if goodput > 0.0:
                return each, closed, goodput, (prompt, output, oversize)
    held = ", ".join(f"tp={each.tp}" + f" pp={each.pp}" * (each.pp > 1) for each, _ in fitting)
    raise InputError("slo", inputs.slo, f"bounds that {pool.model.id} on {pool.xpu.id} can meet; tried {held}")


def _fitting(pool: Pool, inputs: SizeInputs) -> list[Pool]:
    """The pool with each degree of parallelism that holds the model: those given, or within a node and of nodes."""
    fitting: list[Pool] = []
    refused: InputError | None = None
    for tp, pp in _degrees(pool, inputs):
        if pp > 1 and fitting:
            break  # several nodes only where one does not hold it
        try:
            each = replace(pool, tp=tp, pp=pp)
            steady_state(each, 1.0, 2.0)
        except InputError as error:
            refused = refused or error
            continue
        fitting.append(each)
    if not fitting:
        assert refused is not None
        key = refused.key.removeprefix(f"pools.{pool.name}.")
        raise InputError(key, refused.value, refused.accepted, refused.where)
    return fitting


def _degrees(pool: Pool, inputs: SizeInputs) -> Iterator[tuple[int, int]]:
    if "tp" in inputs.given or "pp" in inputs.given:
        yield pool.tp, pool.pp
        return
    linked = pool.interconnect is not None or pool.xpu.timing.link_bytes_per_s
    within = [2**i for i in range(8) if 2**i <= inputs.node_xpus and pool.model.heads % 2**i == 0]
    within = within if linked else [1]
    yield from ((tp, 1) for tp in within)
    if linked:
        yield from ((within[-1], stages) for stages in _STAGES[1:])


def _plan(
    pool: Pool,
    site: Site,
    price_usd: float | None,
    closed: SteadyState,
    goodput: float,
    lengths: tuple[float, float, float],
    inputs: SizeInputs,
) -> ServingPlan:
    from analysis import summarize

    rate, each = inputs.inference.rate, pool.tp * pool.pp
    replicas = math.ceil(rate / goodput)
    result = serve_replica(pool, site, rate / replicas, request_count(closed, inputs), inputs)
    summary = summarize(result)
    total, own = summary["total"], summary["by_pool"][pool.name]
    seconds = own["provisioned_xpu_s"] / each
    tokens = total["output_tokens"]
    carbon = own["carbon_kg"]
    nodes, capital = whole_nodes(replicas * each, price_usd, inputs)
    entry_nodes, entry = whole_nodes(each, price_usd, inputs)
    batch = total["e2e_s"]["mean"] * rate / replicas
    kv_each = closed.blocks_each * closed.block_bytes

    def a_day(amount: float | None) -> float | None:
        return None if amount is None else amount / seconds * _DAY_S * replicas

    def a_token(amount: float | None) -> float | None:
        return None if amount is None else amount / tokens

    return ServingPlan(
        pool,
        rate,
        *lengths,
        closed,
        goodput,
        replicas,
        replicas * each,
        each,
        weight_bytes_per_xpu(pool.model, pool.tp, pool.precision, pool.pp) * each,
        batch * kv_each,
        closed.batch * kv_each,
        closed.blocks * closed.block_bytes,
        _attainment(result),
        batch,
        own["energy_kwh"] * 3.6e6 / tokens,
        a_token(own["cost_usd"]),
        a_token(None if carbon["operational"] is None else 1e3 * carbon["operational"]),
        a_token(None if carbon["embodied"] is None else 1e3 * carbon["embodied"]),
        own["energy_kwh"] * 3.6e6 / seconds * replicas,
        a_day(own["cost_usd"]),
        a_day(carbon["total"]),
        nodes,
        capital,
        entry_nodes,
        entry,
    )


def goodput_rps(pool: Pool, site: Site, closed: SteadyState, inputs: SizeInputs) -> float:
    """Highest rate at which enough requests meet the SLO, by bisection over runs [1/s]; 0 if none does."""
    most, count = _ABOVE * closed.requests_per_s, request_count(closed, inputs)

    def meets(rate: float) -> bool:
        return _attainment(serve_replica(pool, site, rate, count, inputs)) >= inputs.inference.attainment

    if meets(most):
        return most
    width = 1.01 * most / 2**_STEPS  # a hundredth more: halves are rounded
    return halved(meets, Bracket(0.0, most), lambda low, high: high - low <= width).held


def request_count(closed: SteadyState, inputs: SizeInputs) -> int:
    """Requests of a run."""
    return max(inputs.inference.requests, _TURNOVERS * closed.batch)


def serve_replica(pool: Pool, site: Site, rate: float, count: int, inputs: SizeInputs) -> Result:
    """A run of one replica at a rate."""
    workload = _workload(inputs, rate, count)
    if isinstance(pool.cost, Rent):  # a fleet that serves for days is billed as it is provisioned; this run is short
        pool = replace(pool, cost=replace(pool.cost, billing_unit_s=0.0))
    fleet = Fleet((replace(site, pools=(pool,)),))
    warm = _WARM * count / rate
    return run(fleet, workload, LeastOutstanding(), seed=inputs.inference.seed, warmup_s=warm, oversize="reject")


def _attainment(result: Result) -> float:
    """Share of the requests within the SLO, of those that the model's context holds."""
    column = result.requests
    asked = column["counted"] & (column["status"] != REJECTED)
    return float(column["slo_met"][asked].mean()) if asked.any() else 0.0


def _workload(inputs: SizeInputs, rate: float, count: int) -> Any:
    ask = inputs.inference
    if ask.prompt is not None:
        lengths: Any = {"_target_": "sim.workload.lengths.Fixed", "prompt": ask.prompt, "output": ask.output}
    else:
        lengths = scenario_file("workload/lengths", ask.lengths, "inference.lengths", inputs.search).get("lengths")
    made = {
        "_target_": "sim.workload.synthetic.SyntheticWorkload",
        "arrivals": {"_target_": "sim.workload.arrivals.Poisson", "rate": rate},
        "lengths": lengths,
        "limit": count,
    }
    slo = scenario_file("slo", inputs.slo, "slo", inputs.search)
    return build_workload(Section(made, "inference"), Section(slo, "slo"), ())


def mean_lengths(pool: Pool, inputs: SizeInputs) -> tuple[float, float, float]:
    """Mean prompt and output of the requests that the model's context holds, and the share of the others.

    Raises:
        InputError: it holds none.
    """
    ask = inputs.inference
    batches = list(_workload(inputs, ask.rate, ask.requests).batches(Streams(ask.seed)))
    names = ("prompt_tokens", "output_tokens")
    prompt, output = (np.concatenate([getattr(batch, name) for batch in batches]) for name in names)
    longest = min(pool.engine.max_model_len or pool.model.max_context, pool.model.max_context)
    held = prompt + output <= longest
    if not held.any():
        key = "inference.lengths" if ask.prompt is None else "inference.prompt"
        raise InputError(key, ask.prompt or ask.lengths, f"requests of at most {longest} tokens, for {pool.model.id}")
    return float(prompt[held].mean()), float(output[held].mean()), float(1.0 - held.mean())


def _bounds(inputs: SizeInputs) -> tuple[float, float]:
    """The strictest bounds of the SLO's classes on TPOT and TTFT [s]; infinity where there is none."""
    classes = scenario_file("slo", inputs.slo, "slo", inputs.search)["classes"]
    tpot, ttft = ([row.get(key) or math.inf for row in classes] for key in ("tpot_s", "ttft_s"))
    return min(tpot), min(ttft)

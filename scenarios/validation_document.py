"""Writes docs/validation.md: every comparison with a folder of measurements, weakest cases first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.agreement import METRICS, Section, absolute, markdown, pair_cells, run_cells, share
from analysis.study import FAILS, HOLDS, PARTLY, UNTESTED, Outcome
from scenarios import aggregates, energy, validation_energy
from scenarios.replay import Replay, read, replay
from scenarios.reproduce import outcome_of
from scenarios.validation_energy import ENERGY
from scenarios.validation_tables import aggregates_notes, aggregates_table, whole_runs
from sim.errors import InputError
from sim.hardware import catalogue
from sim.hardware.catalogue import load_entry

TITLE = "# Validation"
#: Where a data folder keeps what is compared, and where that comes from.
RUNS = "measured/vllm"
AGGREGATES = "measured/vllm_h100_aggregates.csv"
#: Largest absolute errors that the tests allow: far above today's, so that only a regression or a slip trips them.
BOUNDS = {
    "TPOT of a replayed run, mean": 0.15,
    "E2E of a replayed run, mean": 0.20,
    "makespan of a replayed run": 0.15,
    "E2E of runs known by means, mean over runs": 0.15,
    "decode energy on A100 at measured pace, median over cases": 0.15,
    "energy of full batches at measured pace, median over cases": 0.15,
    "energy at measured pace, worst case": 0.35,
    "power of a server over time, mean": 0.10,
}
_WEAKEST = 12  #: rows of the first table

_INTRO = """\
How far the simulator is from real engines. An error is (simulated - measured) / measured: negative is too fast, too
little, too optimistic. One command writes this page from a folder with the published measurements:

    hybridfleet validate document=docs/validation.md data=DIR claims=policy_claims

and `hybridfleet validate measured=...`, `aggregates=...` and `energy=...` give every number of it, and of one's own
runs."""

_NOT_VALIDATED = """\
No measurement on this page stands behind any of these:

- **Chips.** Only RTX 4090, RTX PRO 6000, H100 SXM and A100 SXM in time, A100 SXM, H100 SXM and one RTX A6000 in power.
  All others rest on datasheets, kernel times and a rule in shares of the power limit: `hybridfleet list xpus` shows the
  ground of each.
- **Engines** besides vLLM V1 (0.15 and 0.19): SGLang, TensorRT-LLM, llama.cpp. Both energy files were measured on
  older, slower engines, which `stack=` stands for; *at measured pace* tells power apart from speed.
- **Front end and network.** Replays compare engine times. Means of the H100 runs are the client's; for the front end
  the simulated times carry a constant 6.5 ms that was read off these very runs.
- **Overload and memory pressure** beyond the two replays, many replicas behind a balancer, spilling between sites,
  prompts above a few thousand tokens; pipelines but for the energy of full batches; expert parallelism, TP over
  PCIe or Ethernet, speculative decoding, disaggregation, image encoders, host tiers of prefix caches, adapters.
- **Prefix caching** as a mechanism: repeated prompts are given their hits.
- **Host power** beyond one server, **idle power** of most chips (a simulated fleet also never falls asleep), **PUE,
  embodied carbon, cost and network energy.** They follow named methods and sources, and are as good as those.
- **Quality of answers.** Scores are the makers' own, most of them from memory; nothing here measures them."""

_METHOD = """\
- **Replays.** Every request with its own prompt and output length arrives when the real engine queued it. Model, chip,
  parallelism and engine settings come from the run's own `meta.json`; what it leaves open is what vLLM would have
  chosen, and is listed. Times are the engine's: TTFT = first token - queued, E2E = last token - queued,
  TPOT = (last - first) / (tokens - 1), makespan = last token - first arrival. Percentiles are numpy's linear ones.
- **Prompts that begin alike.** The 300 requests of the replays are turns of conversations, so some prompts begin with
  an earlier one, and vLLM found that part in its cache. The records hold no text, so here prompts are distinct (rows of
  `requests.jsonl` may have `input_tok_ids`; then they are not). It shows: single steps of the run on the RTX 4090 took
  prompts of 2,106 and 2,630 tokens in whole under a budget of 2,048, and the run on the RTX PRO 6000 computed about 30
  of the same prompts in less than their time. Memory is full in the first of these runs, and a hit lets one more
  request in before it is, or leaves it to the next wave, 12 s later. Up to the first hit, at 25 s, a simulation that is
  given the slow first step of a cold engine agrees with the log in every admission and to the block in the memory
  taken. With 17 hits guessed from both records its errors on the RTX 4090 are: TTFT mean +0.3 %, p95 +0.3 %; TPOT p90
  +0.6 %; E2E p50 +1.3 %; makespan -0.1 %. Without them: +2.2, +10.0, +2.5, +4.7 and +1.1 %. The guesses are in no
  figure of this page. On the RTX PRO 6000 the hits hide that steps with prefill take 5 % longer than simulated.
- **Runs known by means.** Stages follow one another at their recorded rates, with Poisson arrivals (the spread of E2E
  fits them; the law is not recorded). The realised output is 1 + (E2E - TTFT) / ITL. ITL is the mean over all gaps.
  One set of coefficients serves all runs of a chip.
{energy}
- **Coefficients** belong to the xPU; there is none for a run, a workload or a model. Where one was fitted to figures of
  this page, agreement with those is no test of it: the last section gives every source. Chosen after seeing these runs:
  the time a layer on the RTX 4090, the time a step on the RTX PRO 6000, which rows of the skew tables count, on H100
  the time of a MoE layer, of sorting for top-p sampling and of repetition penalties (both Qwen2.5 runs: they are no
  test of it), and the front end. All else comes from kernel times."""


@dataclass(slots=True)
class _Findings:
    """All comparisons of a data folder."""

    replays: list[Replay] = field(default_factory=list)
    aggregates: list[aggregates.Compared] = field(default_factory=list)
    energy: validation_energy.Findings = field(default_factory=validation_energy.Findings)


def write_document(path: Path, data: Path, search: Sequence[Path] = (), claims: str | None = None) -> None:
    """Compare with all measurements of a data folder and write the page.

    Args:
        path: file to write; one that exists is replaced only if it is such a page.
        data: folder laid out as `RUNS`, `AGGREGATES` and `ENERGY` say; parts may be missing.
        search: further folders of the catalogue.
        claims: a study of published claims (`conf/study`) to run as well, or None.

    Raises:
        InputError: the folder has none of them, something in it cannot be used, or the file is another.
    """
    if path.exists() and not (path.is_file() and path.read_text("utf-8", "replace").startswith(TITLE)):
        raise InputError("document", str(path), f"a new file, or one that begins with {TITLE!r}")
    if claims is not None:
        load_entry("study", claims, search)  # before the long part
    text = document(_findings(data, search), search, claims and (claims, outcome_of(claims, search)))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError("document", str(path), f"a file that can be written ({error.strerror or error})") from error


def _findings(data: Path, search: Sequence[Path]) -> _Findings:
    found = _Findings()
    for folder in sorted((data / RUNS).glob("*/")):
        if (folder / "requests.jsonl").is_file():
            found.replays.append(replay(read(folder, {}, search=search), {}, search))
    if (data / AGGREGATES).is_file():
        found.aggregates = aggregates.compare_aggregates(data / AGGREGATES, {}, search=search)
    found.energy = validation_energy.find(data, search)
    if not (found.replays or found.aggregates or found.energy.energies or found.energy.logs or found.energy.kernels):
        raise InputError(
            "data", str(data), f"a folder with {RUNS}/*/requests.jsonl, {AGGREGATES} or {', '.join(ENERGY)}"
        )
    return found


def document(found: _Findings, search: Sequence[Path] = (), claims: tuple[str, Outcome] | None = None) -> str:
    """The page; `claims`: a study's name and what it found."""
    parts = [
        TITLE,
        _INTRO,
        "## At a glance",
        markdown(["compared", "rows", "metric", "mean abs. error", "median", "worst"], list(_glance(found)), 1),
        "Coefficients change; the tests only hold these bounds: "
        + "; ".join(f"{name} {share(bound)}" for name, bound in BOUNDS.items())
        + ".",
        f"## The {_WEAKEST} weakest figures",
        markdown(["case", "metric", "measured", "simulated", "error"], _weakest(found), 2),
        "## What is not validated",
        _NOT_VALIDATED,
        "## Method",
        _METHOD.format(energy=validation_energy.METHOD.format(prompt=energy.DEFAULT_PROMPT)),
        *_replay_parts(found.replays),
        *_aggregate_parts(found.aggregates),
        *validation_energy.parts(found.energy),
        *(_claims_parts(*claims) if claims else ()),
        *_ground_parts(_xpus(found), search),
    ]
    return "\n\n".join(parts) + "\n"


def _glance(found: _Findings) -> Iterator[list[str]]:
    """One row a metric: absolute errors over what was compared."""
    labels = {key: label for key, label, _, _ in METRICS}
    groups: list[tuple[str, dict[str, str], list[Mapping[str, Section]]]] = []
    statistics = {
        f"{key}.{name}": f"{labels[key]} {name}" for key in ("ttft_s", "tpot_s", "e2e_s") for name in ("mean", "p99")
    }
    runs: list[Mapping[str, Section]] = [_flat(each) for each in found.replays]
    groups.append(("replays, engine times", {**statistics, "makespan_s": "makespan"}, runs))
    means = {key: labels[key] + " mean" for key in aggregates.METRICS}
    groups.append(("H100 runs by means, client times", means, [row.errors for row in whole_runs(found.aggregates)]))
    for title, metrics, rows in groups:
        for key, summary in absolute(rows, list(metrics)).items():
            if summary["rows"]:
                errors = [share(summary[name]) for name in ("mean", "median", "max")]
                yield [title, str(summary["rows"]), metrics[key], *errors]
    yield from validation_energy.glance(found.energy)


def _flat(run: Replay) -> dict[str, Section]:
    """A replay's statistics under names such as ``ttft_s.p99``."""
    agreement = run.agreement
    flat = {f"{key}.{name}": pair for key, _, _, _ in METRICS for name, pair in agreement.get(key, {}).items()}
    return {**flat, "makespan_s": agreement["makespan_s"]}


def _weakest(found: _Findings) -> list[list[str]]:
    """The largest errors of all, the most of a kind of comparison being a third."""
    units = {key: (label, unit, scale) for key, label, unit, scale in METRICS}
    kinds: list[list[tuple[str, str, Section, float]]] = [[], [], []]
    for run in found.replays:
        for key, pair in _flat(run).items():
            metric, _, statistic = key.partition(".")
            label, unit, scale = units.get(metric, ("makespan", "s", 1.0))
            kinds[0].append((run.record.name, f"{label} {statistic}".strip() + f" [{unit}]", pair, scale))
    for row in whole_runs(found.aggregates):
        for key, pair in row.errors.items():
            label, unit, scale = units[key]
            kinds[1].append((row.experiment, f"{label} mean [{unit}]", pair, scale))
    for done in found.energy.energies.values():
        for each in (each for each in done.cases if not each.suspected):
            kinds[2].append((_name(each.case), "energy [J/token]", each.errors["joules_per_token"], 1.0))
    worst = []
    for kind in kinds:
        known = [row for row in kind if row[2]["error"] is not None]
        worst += sorted(known, key=lambda row: -abs(row[2]["error"]))[: _WEAKEST // 3]
    worst.sort(key=lambda row: -abs(row[2]["error"]))
    return [[case, metric, *pair_cells(pair, scale)] for case, metric, pair, scale in worst]


def _name(case: energy.Case) -> str:
    return f"{case.model}, {case.tp * case.pp} x {case.xpu}, batch {case.batch}, {case.prompt} + {case.output} tokens"


def _xpus(found: _Findings) -> list[str]:
    """Ids of the xPUs that were simulated."""
    names = {run.pool.xpu.id for run in found.replays} | {row.xpu.split()[-1] for row in found.aggregates}
    return sorted(names | found.energy.xpus())


def _ground_parts(names: Sequence[str], search: Sequence[Path]) -> Iterator[str]:
    """Where the timing and power coefficients of each xPU come from, as its entry says."""
    yield "## What the coefficients rest on"
    rows = []
    for name in names:
        keys: dict[tuple[str, str], list[str]] = {}
        for key, (_, source, kind) in catalogue.xpu(name, search).provenance.items():
            if key.startswith(("timing.", "power.")):
                keys.setdefault((kind, source), []).append(key.partition(".")[2])
        rows += [[name, ", ".join(those), kind, source] for (kind, source), those in keys.items()]
    yield markdown(["xpu", "coefficients", "kind", "source"], rows, 4)


def _claims_parts(name: str, study: Outcome) -> Iterator[str]:
    """Published claims, those that do not hold first."""
    yield "## Published claims"
    count = sum(claim.verdict == HOLDS for claim in study.claims)
    yield (
        f"{study.title} {count} of {len(study.claims)} claims hold here. `hybridfleet reproduce {name}` prints the "
        f"same; why some do not hold is in [reproductions](reproductions.md). {' '.join(study.notes)}"
    )
    order = [FAILS, UNTESTED, PARTLY, HOLDS]
    rows = sorted(study.claims, key=lambda claim: order.index(claim.verdict))
    cells = [[claim.what, claim.evidence, claim.verdict] for claim in rows]
    yield markdown(["claim", "here, and as published", "verdict"], cells, 3)


def _replay_parts(replays: Sequence[Replay]) -> Iterator[str]:
    """A section a run, the one with the largest error of its mean E2E first."""
    if replays:
        yield "## Replays, request by request"
        yield "vLLM 0.19 runs of 300 ShareGPT requests, published with LLMServingSim (MIT)."
    for run in sorted(replays, key=lambda run: -abs(run.agreement["e2e_s"]["mean"]["error"] or 0.0)):
        yield f"### {run.record.name}"
        yield "\n".join(f"- {line}" for line in run.describe())
        yield markdown(["metric", "", "measured", "simulated", "error"], run_cells(run.agreement, run.tokens_per_s), 2)


def _aggregate_parts(rows: Sequence[aggregates.Compared]) -> Iterator[str]:
    if not rows:
        return
    worst = {row.experiment: abs(row.errors["e2e_s"]["error"] or 0.0) for row in whole_runs(rows)}
    ordered = sorted(rows, key=lambda row: -worst[row.experiment])  # stable: the stages stay below their run
    yield "## Runs known by their means"
    yield "vLLM 0.15 on H100, figures from the published records of BLIS (inference-sim). " + " ".join(
        aggregates_notes()
    )
    headings, cells, texts = aggregates_table(ordered)
    yield markdown(headings, cells, texts)

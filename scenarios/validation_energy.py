"""The parts of docs/validation.md on energy and power: tables of joules, what left-out models and xPUs give, logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from analysis.agreement import Section, absolute, markdown, share
from scenarios import energy, kernel_power, power_compare
from scenarios.calibrate_energy import read_files
from scenarios.energy_fit import POWER, STACK, Sample, left_out, summary
from scenarios.power_tables import power_notes, power_table
from scenarios.validation_tables import energy_notes, kernel_notes, kernel_table


class Table(NamedTuple):
    """A table of energies: its title, what it holds, and the stack that it was measured on."""

    title: str
    about: str
    stack: str


ENERGY = {
    "measured/power/splitwise_a100_power_fraction_of_tdp.csv": Table(
        "Splitwise, A100 decode",
        "Power of A100 80 GB in decode as a share of TDP, by batch and prompt (Splitwise, MIT).",
        "splitwise",
    ),
    "measured/power/v2_llm_a100_h100.csv": Table(
        "ML.ENERGY v2, full batches",
        "Joules per request of full batches on A100 40 GB and H100 (ML.ENERGY leaderboard v2, Apache-2.0).",
        "mlenergy_v2",
    ),
}
KERNELS = "measured/power/aiconfigurator_kernel_power_h200_b200_sample.csv"
LOGS = "measured/power"  #: folders in it hold power logs
_HEADINGS = [
    "deployment",
    "cases",
    "J/token",
    "worst",
    "at simulated pace",
    "as vLLM V1",
    "step time",
]

METHOD = """\
- **Energy.** A batch of equal requests, sent at once to an idle engine; energy of the xPUs alone. A file without prompt
  lengths is taken to have {prompt} prompt tokens [assumed]. *At measured pace*: the simulated dynamic energy of a
  token, and the simulated static power over the measured time of one, from output throughput or the time of a step.
  That is what `validate energy=` reports for a file that knows its pace. *At simulated pace*: with the overheads of the
  serving stack that was measured (`stack=`, entries in `conf/stack`), and with those of vLLM V1, the default.
- **Left out.** Power is `static + max(active, compute x MFU + memory x MBU)` while a kernel runs. All rows of a model
  (or xPU) are left out, the coefficients that the other rows determine are fitted to those alone (the rest stay as the
  catalogue has them, and all but static power where fewer than three models are left), and the rows left out are
  compared. An xPU left out gets the others' coefficients by shares of its limit, static power included, and energy of a
  FLOP in proportion to the process node. The same with the overheads of a stack and the time of a token. Batches are in
  their steady state here. `calibrate energy=... loo=model|xpu` gives these numbers for any file. The law itself, terms
  that the data did not determine, and the overheads in `conf/stack` were chosen after seeing these very files.
- **Suspected.** A case that took less than 0.6 of the energy of the same batch with a shorter prompt contradicts its
  own file: it is shown, and neither fitted nor in a summary.
- **Worst energies.** Llama-3.1-70B on 8 A100 at batches of 32 and 64 drew 99 and 106 W an xPU. CodeLlama-70B, the same
  architecture on the same chips at the same batches and about the same pace, drew 138 and 149 W, with work that
  accounts for 5 W more; from a batch of 192 on the two agree with the model, and on H100 all rows do. No term by gaps,
  busy time or batch explains it: a lower static power in long gaps gains nothing on any other row. Code prompts count
  as 200 tokens, which the file lacks: StarCoder2 and CodeLlama hang on them.
- **Sampling.** Tasks of ML.ENERGY sample by top-p in chat, which sorts all logits, and greedily in code (its clients
  say so). Pipelines: one host prepares all micro-batches, so that those of the old engine pace as the sum of its work.
- **Kernels.** Watts of short kernels are not theirs alone: a kernel is repeated for some 0.02 to 1 s, while meters
  average over about a second. The same shape at equal time reads 255 and 583 W on B200, 291 and 743 W for another. In
  the whole table of H200 the median of the eight nearest kernels by time, MFU and MBU misses by 14 % (prompts), 22 %
  (decode) and 4 % (GEMMs), and errors follow one another in the order of collection: no law of time, FLOP and bytes
  can do much better. Shapes that appear twice differ in window or cache format, which the sample does not tell.
- **Power over time.** Every line of the engine's log gives the tokens of an interval; the model turns them into watts.
  The host's power was read off the same log, so the level of the server is no test of it."""


@dataclass(slots=True)
class Findings:
    """All comparisons of energy and power in a data folder.

    Attributes:
        energies: by file, with the overheads of the stack that was measured.
        plain: the same files with those of vLLM V1.
        held_out: (what was left out, of what, errors by group).
        kernels: table of kernels, or None.
        logs: power logs.
    """

    energies: dict[str, energy.Energies] = field(default_factory=dict)
    plain: dict[str, energy.Energies] = field(default_factory=dict)
    held_out: list[tuple[str, str, dict[str, list[float]]]] = field(default_factory=list)
    kernels: kernel_power.KernelTable | None = None
    logs: list[power_compare.PowerOverTime] = field(default_factory=list)

    def xpus(self) -> set[str]:
        """Ids of the xPUs that were simulated."""
        names = {each.case.xpu for done in self.energies.values() for each in done.cases}
        return names | {each.pool.xpu.id for each in self.logs}


def find(data: Path, search: Sequence[Path] = ()) -> Findings:
    """Compare with everything on energy and power in a data folder."""
    found = Findings()
    paths = [name for name in ENERGY if (data / name).is_file()]
    for name in paths:
        found.energies[name] = energy.compare_energy(data / name, {"stack": ENERGY[name].stack}, search=search)
        found.plain[name] = energy.compare_energy(data / name, {}, search=search)
    found.held_out = list(_held_out(data, paths, search))
    if (data / KERNELS).is_file():
        found.kernels = kernel_power.read_kernel_power(data / KERNELS, {}, search)
    for folder in sorted((data / LOGS).glob("*/")):
        if any(folder.glob("gpu_power*")):
            found.logs.append(power_compare.compare_power(folder, {}, None, search))
    return found


def _held_out(
    data: Path, paths: Sequence[str], search: Sequence[Path]
) -> Iterator[tuple[str, str, dict[str, list[float]]]]:
    """Errors of models and of xPUs left out."""
    everything: list[Sample] = []
    for name in paths:
        title, stack = ENERGY[name].title, ENERGY[name].stack
        samples = read_files([data / name], [], {}, {"stack": stack}, search).samples
        everything += samples
        for xpu in dict.fromkeys(each.case.xpu for each in samples):
            own = [each for each in samples if each.case.xpu == xpu]
            if len({each.case.model for each in own}) > 1:
                yield f"{title}, {xpu}", "model, J/token", left_out(own, _model, "power", POWER)
        for what, by in (("model", _model), ("xpu", _xpu)):
            if len(set(map(by, samples))) > 1:
                yield f"{title}, {stack}", f"{what}, time of a token", left_out(samples, by, "stack", STACK)
    if len({each.case.xpu for each in everything}) > 1:
        yield "both", "xpu, J/token", left_out(everything, _xpu, "power", POWER)


def _model(sample: Sample) -> str:
    return sample.case.model


def _xpu(sample: Sample) -> str:
    return sample.case.xpu


def glance(found: Findings) -> Iterator[list[str]]:
    """Rows of the first table of the page: title, rows, metric, mean, median and worst absolute error."""
    for path, done in found.energies.items():
        summed = absolute(done.trusted(), energy.METRICS)
        plain = absolute(found.plain[path].trusted(), energy.METRICS)
        rows = [("J/token at measured pace", summed["joules_per_token"])]
        rows += [(f"J/token at simulated pace, stack {ENERGY[path].stack}", summed["joules_per_token_simulated"])]
        rows += [("J/token at simulated pace, vLLM V1", plain["joules_per_token_simulated"])]
        rows += [(f"step time, stack {ENERGY[path].stack}", summed["step_s"])]
        for metric, each in rows:
            if each["rows"]:
                yield [
                    ENERGY[path].title,
                    str(each["rows"]),
                    metric,
                    *(share(each[k]) for k in ("mean", "median", "max")),
                ]
    for of, what, errors in found.held_out:
        each = summary(errors)
        count = sum(map(len, errors.values()))
        metric = f"left out: {what}"
        yield [of, str(count), metric, *(share(each[key]) for key in ("mean", "median", "worst"))]
    if found.kernels is not None:
        for kernels in found.kernels.kernels:
            off = np.abs(kernels.errors())
            cells = [share(float(value)) for value in (off.mean(), np.median(off), off.max())]
            yield [f"kernels, {kernels.xpu.id}", str(len(off)), f"J of {kernels.op}", *cells]
    for log in found.logs:
        for key, section in log.sections().items():
            if key in ("gpu", "server"):
                cells = [share(section["mean_absolute_error"]), "", ""]
                yield [log.log.name, f"{section['seconds']} s", f"power over time, {key}", *cells]


def parts(found: Findings) -> Iterator[str]:
    """Tables of every file, the weakest deployment first; what was left out; kernels; logs."""
    if found.energies:
        yield "## Energy"
        yield "Median absolute errors over the batches of each deployment; `validate energy=` shows every batch."
    for path, done in found.energies.items():
        yield f"### {ENERGY[path].title}"
        yield ENERGY[path].about
        yield markdown(_HEADINGS, _deployments(done, found.plain[path]), 1)
        yield "\n".join(f"- {line}" for line in energy_notes(done))
    if found.held_out:
        yield "### Models and xPUs left out"
        yield "Absolute errors of what was left out, with coefficients fitted to the rest."
        headings = ["of", "left out", "group", "cases", "mean", "median", "worst"]
        yield markdown(headings, list(_left_out_rows(found)), 3)
    if found.kernels is not None:
        yield "### Power of kernels"
        yield "Kernels measured one at a time on H200 and B200 (aiconfigurator sample, Apache-2.0)."
        yield markdown(*kernel_table(found.kernels))
        yield "\n".join(f"- {line}" for line in kernel_notes(found.kernels))
    for log in found.logs:
        yield f"### Power over time: {log.log.name}"
        yield markdown(*power_table(log))
        yield "\n".join(f"- {line}" for line in power_notes(log))


def _deployments(done: energy.Energies, plain: energy.Energies) -> list[list[str]]:
    """Medians by deployment of the cases that are not suspected, the weakest first."""
    groups: dict[str, list[tuple[Mapping[str, Section], Mapping[str, Section]]]] = {}
    for each, bare in zip(done.cases, plain.cases):
        if not each.suspected:
            name = f"{each.case.model}, {each.case.tp * each.case.pp} x {each.case.xpu}"
            groups.setdefault(name, []).append((each.errors, bare.errors))
    rows = []
    for name, both in groups.items():
        with_stack = absolute([errors for errors, _ in both], energy.METRICS)
        bare_one = absolute([errors for _, errors in both], energy.METRICS)
        first = with_stack["joules_per_token"]
        cells = [first["median"], first["max"], with_stack["joules_per_token_simulated"]["median"]]
        cells += [bare_one["joules_per_token_simulated"]["median"], with_stack["step_s"]["median"]]
        rows.append((first["median"] or 0.0, [name, str(len(both)), *map(share, cells)]))
    return [cells for _, cells in sorted(rows, key=lambda row: -row[0])]


def _left_out_rows(found: Findings) -> Iterator[list[str]]:
    for of, what, errors in found.held_out:
        everything = [value for values in errors.values() for value in values]
        for group, values in (*errors.items(), ("all", everything)):
            each = summary({group: values})
            yield [of, what, group, str(len(values)), *(share(each[key]) for key in ("mean", "median", "worst"))]

"""Tables, figure and verdicts of clusters that split the phases."""

from __future__ import annotations

from itertools import pairwise

from analysis.study import FAILS, HOLDS, PARTLY, UNTESTED, Cell, Chart, Claim, Table
from scenarios.studies.phase_split_study import (
    BASE_NEW,
    BASE_OLD,
    COST,
    NEW_NEW,
    PAIRS,
    POWER,
    Best,
    Found,
    Study,
)

_SAME = 0.05  #: share of a rate that counts as no difference


def tables(study: Study, found: Found) -> list[Table]:
    """The best of each design, and the gains of splitting with other inputs."""
    columns = ("workload", "design", "machines", "requests/s", "over new", "power [kW]", "USD/h", "requests/s/kW",
               "USD / 1,000")  # fmt: skip
    made = []
    for budget, name in ((POWER, "power"), (COST, "cost")):
        rows: list[list[Cell]] = []
        for (workload, each, design), best in found.best.items():
            if each == budget:
                base = found.best[workload, budget, BASE_NEW].rate
                rows.append([workload.removeprefix("azure_"), design, best.cluster.words, best.rate,
                             best.rate / base if base else None, best.watts / 1e3, best.usd,
                             1e3 * best.rate / best.watts, _usd(best)])  # fmt: skip
        caption = f"Machines ({study.old.xpu} old, {study.new.xpu} new; prompt + token) at {budget}: highest rates"
        made.append(Table(f"equal_{name}", caption, columns, rows))
    if found.varied:
        rows = [[name, value, *gain] for name, value, gain in found.varied]
        workload = next(iter(study.benches))
        now = [_gain(found, workload, pair) for pair in PAIRS]
        rows.insert(0, ["as the preset is", "", *now])
        names = ("input", "value", *(f"{split} over {base}" for split, base in PAIRS))
        made.append(Table("varied", f"Gain of splitting the same machines, {workload}, with other inputs", names, rows))
    return made


def _usd(best: Best) -> float | None:
    return best.usd / best.rate / 3.6 if best.rate else None


def _gain(found: Found, workload: str, pair: tuple[str, str]) -> float | None:
    split, base = (found.best[workload, POWER, design].rate for design in pair)
    return split / base if base else None


def claims(study: Study, found: Found) -> list[Claim]:
    """The headline gains, which pool needs more machines, and what power caps do."""
    return [
        _equal(study, found),
        _cheaper(study, found),
        _at_cost(study, found),
        _pools(study, found),
        _caps(study, found),
    ]


def _equal(study: Study, found: Found) -> Claim:
    """The same machines, split: as much power, as much money."""
    known = study.published["equal_both"]
    gains = {
        f"{pair[0]}, {workload}": gain
        for workload in study.benches
        for pair in PAIRS
        if (gain := _gain(found, workload, pair)) is not None
    }
    what = f"Splitting gives {known:.2f} times the throughput at equal power and cost"
    if not gains:
        return Claim(what, UNTESTED, "No cluster keeps the bounds at any rate.")
    near = sum(abs(gain / known - 1.0) <= study.within for gain in gains.values())
    verdict = HOLDS if near == len(gains) else PARTLY if max(gains.values()) > 1.0 + _SAME else FAILS
    words = "; ".join(f"{name}: {gain:.2f}" for name, gain in gains.items())
    return Claim(what, verdict, f"{words}. Within {study.within:.0%} of it: {near} of {len(gains)}.")


def _cheaper(study: Study, found: Found) -> Claim:
    """Among splits with the power of the new machines, one that serves more for less."""
    more, less = study.published["throughput"], study.published["cost"]
    what = f"At equal power, {more:.2f} times the throughput of new machines at {1.0 - less:.0%} lower cost"
    words, whole, part = [], False, False
    for workload in study.benches:
        base = found.best[workload, POWER, BASE_NEW]
        for (name, budget, design), best in found.best.items():
            if (name, budget) != (workload, POWER) or design in (BASE_OLD, BASE_NEW) or not base.rate:
                continue
            gain, cost = best.rate / base.rate, best.usd / base.usd
            words.append(f"{design}, {workload}: {gain:.2f} at {cost:.2f} of the cost")
            whole |= gain >= more * (1.0 - study.within) and 1.0 - cost >= (1.0 - less) * (1.0 - study.within)
            part |= gain > 1.0 + _SAME and cost < 1.0
    verdict = UNTESTED if not words else HOLDS if whole else PARTLY if part else FAILS
    return Claim(what, verdict, "; ".join(words) + ".")


def _at_cost(study: Study, found: Found) -> Claim:
    """At equal cost, the best split beats the best cluster that does both."""
    agree, words = 0, []
    for workload in study.benches:
        own = {
            design: best.rate
            for (name, budget, design), best in found.best.items()
            if (name, budget) == (workload, COST)
        }
        both = max(own[BASE_OLD], own[BASE_NEW])
        split = max((design for design in own if design not in (BASE_OLD, BASE_NEW)), key=lambda name: own[name])
        agree += own[split] > both * (1.0 + _SAME)
        words.append(f"{workload}: {split} {own[split]:.1f}, best of both phases {both:.1f} requests/s")
    verdict = HOLDS if agree == len(words) else PARTLY if agree else FAILS
    return Claim(
        "At equal cost some split serves more than any cluster that does both", verdict, "; ".join(words) + "."
    )


def _pools(study: Study, found: Found) -> Claim:
    """The share of prompt machines by the work that prompts are: workloads in order of prompt over output."""
    what = "The more prompts weigh, the more prompt machines"
    shares = {}
    for workload in study.benches:
        cluster = found.best[workload, POWER, NEW_NEW].cluster
        assert cluster.prompt is not None
        shares[workload] = cluster.prompt.count / (cluster.prompt.count + cluster.token.count)
    weights = {name: _weight(study, name) for name in shares}
    order = sorted(shares, key=lambda name: weights[name])
    if len(order) < 2:
        return Claim(what, UNTESTED, "One workload alone.")
    rising = all(shares[one] < shares[other] for one, other in pairwise(order))
    words = "; ".join(
        f"{name}: {found.best[name, POWER, NEW_NEW].cluster.words} ({weights[name]:.0f} prompt tokens an output token)"
        for name in order
    )
    return Claim(what, HOLDS if rising else FAILS, f"{words}.")


def _weight(study: Study, workload: str) -> float:
    import numpy as np

    prompt, output = study.benches[workload].load.lengths.sample(np.random.default_rng(0), 10_000)
    return float(prompt.sum() / output.sum())


def _caps(study: Study, found: Found) -> Claim:
    """The same machines, those for tokens capped."""
    agree, words = 0, []
    for workload, (cluster, rate) in found.capped.items():
        free = found.best[workload, POWER, NEW_NEW]
        power = study.best(cluster, rate).watts / free.watts
        agree += rate >= free.rate * (1.0 - _SAME)
        kept = f"{rate / free.rate:.0%} of the rate" if free.rate else "no rate"
        words.append(f"{workload}: {kept} at {power:.0%} of the power")
    verdict = HOLDS if agree == len(words) else PARTLY if agree else FAILS
    what = f"Token machines serve as much at {study.cap:.0%} of their power limit"
    return Claim(what, verdict, "; ".join(words) + ".")


def notes(study: Study) -> list[str]:
    """What a reader has to know."""
    return [
        "Power is the limit of the GPUs, money their rent; hosts and idle power are left out, as the comparison counts "
        "what is provisioned.",
        f"{study.count} new machines in place of 40: splits are coarser, and fewer machines share the load. Machines "
        "keep their kind of work: the mixed pool that takes over when one side is full is not modelled.",
        "Copies of a KV cache begin when the prompt is done; the study overlaps them with it layer by layer.",
    ]


def bars(found: Found) -> Chart:
    """Highest rates by design, a panel a workload and budget."""
    panels = {}
    for workload, budget in dict.fromkeys((workload, budget) for workload, budget, _ in found.best):
        own = {d: best.rate for (name, each, d), best in found.best.items() if (name, each) == (workload, budget)}
        short = [design.replace(", both phases", "").replace(" + ", "\n+ ") for design in own]
        panels[f"{workload}, {budget}"] = {"requests/s": (short, list(own.values()))}
    caption = "Highest rate within the bounds on slowdown, by design; old and new alone do both phases."
    return Chart("rates", caption, "bars", "", "Requests/s", panels)

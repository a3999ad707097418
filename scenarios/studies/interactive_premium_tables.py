"""Tables, figure and verdicts of the interactive premium."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.study import FAILS, HOLDS, PARTLY, Cell, Chart, Claim, Table
from scenarios.studies.interactive_premium_study import INTERACTIVE, MODES, OFFLINE, SERVER, Found, Study
from scenarios.studies.interactive_premium_varied import Moved
from sim.units import SECONDS_PER_HOUR


def tables(study: Study, found: Found) -> list[Table]:
    """What was found by mode, and by setting of the engine."""
    rows: list[list[Cell]] = []
    xpus = study.setup.pool.replicas * study.setup.pool.xpus_per_replica
    for mode in MODES:
        batch, here = found.batch[mode], found.tokens_per_s[mode]
        price = study.usd_per_hour
        usd = None if price is None or not here else price * xpus / SECONDS_PER_HOUR / here * 1e6
        known = study.published[mode]
        rows.append([mode, here, known, 100.0 * (here / known - 1.0), f"{batch[0]} / {batch[1]}", usd])
    columns = ("mode", "here [tok/s]", "published", "error [%]", "seqs / tokens a step", "USD / 1M tokens")
    caption = f"{study.setup.pool.model.id} on {xpus} {study.setup.pool.xpu.id}: output tokens a second"
    every = [[mode, *batch, value] for mode in MODES for batch, value in found.tried[mode].items()]
    names = ("mode", "max_num_seqs", "max_num_batched_tokens", "tokens_per_s")
    ratios: list[list[Cell]] = [
        [f"{dear} over {cheap}", found.premium(dear, cheap), study.published[cheap] / study.published[dear]]
        for dear, cheap in PAIRS
    ]
    beside: list[list[Cell]] = [
        [
            mode,
            study.logs[mode].rate,
            name,
            *(1e3 * each[name] for each in (found.logged[mode], study.logs[mode].times)),
        ]
        for mode in study.logs
        for name in study.logs[mode].times
    ]
    heads = ("mode", "rate [1/s]", "time", "here [ms]", "log [ms]")
    return [
        Table("modes", caption, columns, rows),
        Table("latency", "Times at the rates of the logs", heads, beside),
        Table("premium", "What a token costs in one mode over another", ("premium", "here", "published"), ratios),
        Table("settings", "Output tokens a second by setting of the engine, shorter runs", names, every),
    ]


#: Modes whose costs are compared.
PAIRS = ((INTERACTIVE, SERVER), (INTERACTIVE, OFFLINE), (SERVER, OFFLINE))


def claims(study: Study, found: Found, moved: Sequence[Moved]) -> list[Claim]:
    """Order of the modes, the premiums, and the throughput itself."""
    return [_order(found), *(_premium(study, found, moved, i) for i in range(len(PAIRS))), _throughput(study, found)]


def _order(found: Found) -> Claim:
    offline, server, tight = (found.tokens_per_s[mode] for mode in MODES)
    held = (server < offline) + (tight < server)
    verdict = {2: HOLDS, 1: PARTLY, 0: FAILS}[held]
    evidence = f"{offline:,.0f} tokens/s offline, {server:,.0f} under server and {tight:,.0f} under interactive bounds."
    return Claim("Tighter bounds leave less throughput", verdict, evidence)


def _premium(study: Study, found: Found, moved: Sequence[Moved], which: int) -> Claim:
    """Whether a ratio is the published one, at least in direction."""
    dear, cheap = PAIRS[which]
    known, here = study.published[cheap] / study.published[dear], found.premium(dear, cheap)
    near, same_side = abs(here / known - 1.0) <= study.within, (here > 1.0) == (known > 1.0)
    verdict = HOLDS if near and same_side else PARTLY if near or same_side else FAILS
    evidence = f"{here:.2f} here ({here / known - 1.0:+.0%})."
    if which < 2 and moved:
        values = [end[which] for each in moved for end in each.ends]
        wide = sum(abs(value / known - 1.0) > study.within for value in values)
        evidence += (
            f" Inputs varied one at a time give {min(values):.2f} to {max(values):.2f}; {wide} of {len(values)} ends "
            f"are more than {study.within:.0%} off the published value."
        )
    return Claim(f"{dear} costs {known:.2f} times what {cheap} does", verdict, evidence)


def _throughput(study: Study, found: Found) -> Claim:
    errors = {mode: found.tokens_per_s[mode] / study.published[mode] - 1.0 for mode in MODES}
    near = sum(abs(error) <= study.within for error in errors.values())
    verdict = HOLDS if near == len(MODES) else PARTLY if near else FAILS
    evidence = "; ".join(f"{mode} {error:+.0%}" for mode, error in errors.items()) + "."
    return Claim(f"The throughput of each mode is within {study.within:.0%}", verdict, evidence)


def notes(study: Study) -> list[str]:
    """What a reader has to know."""
    return [
        f"Timing of {study.setup.pool.xpu.id} is assumed by analogy with other GPUs, and so are the prompts; answers "
        "have the mean and spread that the published logs imply.",
        "An offline run is one replica's, away from its start and end; modes with bounds are Poisson streams to all "
        "replicas, counted after their warm-up. The logs count all of a run.",
        "Each mode takes the engine setting that serves most, as a submitter would choose it.",
    ]


def bars(study: Study, found: Found) -> Chart:
    """Throughput here and published."""
    here = [found.tokens_per_s[mode] for mode in MODES]
    known = [study.published[mode] for mode in MODES]
    names = list(MODES)
    series = {"simulated": (names, here), "published": (names, known)}
    caption = f"Output tokens a second of {study.setup.pool.model.id} by mode."
    return Chart("modes", caption, "bars", "", "Output tokens/s", {study.setup.pool.xpu.id: series})

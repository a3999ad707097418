"""Tables, figure and verdicts of instances, parallelism and clock by load."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from analysis.study import FAILS, HOLDS, PARTLY, UNTESTED, Cell, Chart, Claim, Table
from scenarios.studies.load_settings_study import FREE, Runs, Study, least, mean_saving, saving

_SAME = 0.01  #: share of the energy that counts as no saving


def _percent(share: float | None) -> float | None:
    return None if share is None else 100.0 * share


def best_table(study: Study, runs: Runs) -> Table:
    columns = ("rate [1/s]", "fixed: met [%]", "Wh / 1,000", *(f"{free} [%]" for free in FREE), "best",
               "met [%]")  # fmt: skip
    rows: list[list[Cell]] = []
    for rate in study.rates:
        base, best = runs[rate, study.settings[0]], least(study, runs, rate, "all")
        row: list[Cell] = [rate, 100.0 * base.known("slo_attainment"), base.known("wh_per_1000_requests")]
        row += [_percent(saving(study, runs, rate, free)) for free in FREE]
        if best is not None:
            row += [best[0].words, 100.0 * runs[rate, best[0]].known("slo_attainment")]
        rows.append(row if best is not None else [*row, "none meets the SLO", None])
    fixed = study.settings[0].words
    caption = f"By load: energy of {fixed} (replicas x xPUs at a share of the clock), and what adapting saves of it"
    return Table("loads", caption, columns, rows)


def every(study: Study, runs: Runs) -> Table:
    columns = ("rate", "tp", "replicas", "clock", "wh_per_1000_requests", "slo_attainment", "ttft_p99_s")
    rows: list[list[Cell]] = [
        [rate, s.tp, s.replicas, s.clock, *(run.known(key) for key in columns[4:])] for (rate, s), run in runs.items()
    ]
    return Table("settings", "Every setting at every load", columns, rows, shown=False)


def varied(study: Study, runs: Mapping[str, Runs]) -> Table:
    rows: list[list[Cell]] = [
        [name, *(_percent(mean_saving(study, each, free)) for free in FREE)] for name, each in runs.items()
    ]
    columns = ("variant", *(f"{free} [%]" for free in FREE))
    return Table("varied", "Energy saved over all loads, with other inputs", columns, rows)


def claims(study: Study, runs: Runs) -> list[Claim]:
    return [_whole(study, runs), _clocks(study, runs), _low(study, runs), _settings(study, runs)]


def _whole(study: Study, runs: Runs) -> Claim:
    what, here = f"Adapting to the load saves {study.published:.0%} of the energy", mean_saving(study, runs, "all")
    if here is None:
        return Claim(what, UNTESTED, "The fixed setting misses the SLO at all loads.")
    near = abs(here / study.published - 1.0) <= study.within
    parts = ((free, mean_saving(study, runs, free) or 0.0) for free in FREE)
    verdict = HOLDS if near else PARTLY if here > _SAME else FAILS
    return Claim(what, verdict, "; ".join(f"{free}: {share:.0%}" for free, share in parts) + ".")


def _clocks(study: Study, runs: Runs) -> Claim:
    shares = {rate: saving(study, runs, rate, "clock") for rate in study.rates}
    known = {rate: share for rate, share in shares.items() if share is not None}
    agree = sum(share > _SAME for share in known.values())
    verdict = UNTESTED if not known else HOLDS if agree == len(known) else PARTLY if agree else FAILS
    words = "; ".join(f"{share:.0%} at {rate:g}/s" for rate, share in known.items())
    return Claim("Lower clocks alone save energy within the SLO", verdict, f"{words}.")


def _low(study: Study, runs: Runs) -> Claim:
    shares = [share for rate in study.rates if (share := saving(study, runs, rate, "all")) is not None]
    what = "The lower the load, the more is saved"
    if len(shares) < 2:
        return Claim(what, UNTESTED, "Fewer than two loads can be compared.")
    falling = sum(one > other for one, other in pairwise(shares))
    verdict = HOLDS if falling == len(shares) - 1 else PARTLY if falling else FAILS
    return Claim(what, verdict, ", ".join(f"{share:.0%}" for share in shares) + " from low to high load.")


def _settings(study: Study, runs: Runs) -> Claim:
    best = [found[0] for rate in study.rates if (found := least(study, runs, rate, "all")) is not None]
    verdict = UNTESTED if len(best) < 2 else HOLDS if len(set(best)) > 1 else FAILS
    words = f"{len(set(best))} different ones at {len(best)} loads."
    return Claim("No one setting is the best at all loads", verdict, words)


def notes(study: Study) -> list[str]:
    return [
        "Each load is a steady one with the setting that is best for it: changing over takes no time and no energy "
        "here, and xPUs that a setting leaves out draw nothing.",
        "Pools by length of request, which the study has too, are left out.",
    ]


def chart(study: Study, runs: Runs) -> Chart:
    lines = {}
    for free in FREE:
        shares = {rate: saving(study, runs, rate, free) for rate in study.rates}
        kept = {rate: 100.0 * share for rate, share in shares.items() if share is not None}
        lines[free] = (list(kept), list(kept.values()))
    caption = "Energy saved of a fixed setting within the SLO, by load and by what may change."
    return Chart("saved", caption, "lines", "Requests/s", "Energy saved [%]", {"": lines}, log="x")

"""Claims of papers about policies: two scenarios each, on common seeds, and whether the sign of the difference agrees.

A claim names what both scenarios share, what sets them apart (`instead` and `policy`), the metric that is said to move
and which way. Sizes of effects belong to the authors' hardware and traffic: they are shown, not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.comparison import Row
from analysis.stats import Interval, interval, paired
from analysis.study import FAILS, HOLDS, UNTESTED, Cell, Chart, Claim, Outcome, Table, cell_text
from scenarios.compose import composed
from scenarios.schema import Section, boolean, integer, list_of, nearest, text
from scenarios.trials import Trial, runner
from sim.errors import InputError

INSTEAD, POLICY = "instead", "policy"


@dataclass(frozen=True, slots=True)
class Paired:
    """One claim to be tested.

    Attributes:
        says, published, source: what is claimed, the authors' own figure, and where.
        metric: of `analysis.comparison.measures`; rises: whether the policy is said to raise it.
        scenarios: overrides of the two scenarios, by `INSTEAD` and `POLICY`.
    """

    says: str
    published: str
    source: str
    metric: str
    rises: bool
    scenarios: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a claim: means of both scenarios and their paired difference, or why there are none."""

    values: Mapping[str, Interval]
    difference: Interval | None
    why_not: str = ""

    def verdict(self, rises: bool) -> str:
        """Whether the difference has the sign that was claimed, beyond its interval."""
        found = self.difference
        if found is None:
            return UNTESTED
        return HOLDS if not found.holds_zero and (found.mean > 0.0) == rises else FAILS


def run(preset: Section, search: tuple[Path, ...]) -> Outcome:
    """Test all claims of a preset.

    Raises:
        InputError: an input that cannot be used.
    """
    preset.need("program", text)
    title = preset.need("title", text)
    seeds = range(first := preset.need("seed", integer()), first + preset.need("seeds", integer(2)))
    processes, common = preset.need("processes", integer(1)), preset.need("common", list_of(text))
    claims = {name: _read(each, common) for name, each in preset.children("claims").items()}
    preset.finish()
    tested = _test(claims, seeds, processes, search)
    return Outcome(
        title,
        [_claim(claims[name], each) for name, each in tested.items()],
        _tables(claims, tested, len(seeds)),
        [_chart(claims, tested)],
        ["Signs are judged, not sizes: fleets, traffic and prices are this simulator's, not the authors'."],
    )


def _read(claim: Section, common: Sequence[str]) -> Paired:
    shared = [*common, *claim.get("scenario", list_of(text), [])]
    made = Paired(
        claim.need("says", text),
        claim.need("published", text),
        claim.need("source", text),
        claim.need("metric", text),
        claim.need("rises", boolean),
        {side: [*shared, *claim.need(side, list_of(text))] for side in (INSTEAD, POLICY)},
    )
    claim.finish()
    return made


def _test(
    claims: Mapping[str, Paired], seeds: Sequence[int], processes: int, search: tuple[Path, ...]
) -> dict[str, Judged]:
    """Run both scenarios of every claim on every seed."""
    trials = []
    for name, claim in claims.items():
        for side, overrides in claim.scenarios.items():
            try:
                config = composed(overrides, search[0] if search else None).resolve()
            except InputError as error:
                raise InputError(f"claims.{name}.{side}: {error.key}", error.value, error.accepted) from error
            trials += [Trial(f"{name} {side}", {**config, "seed": seed}, search) for seed in seeds]
    rows: dict[str, list[Row]] = {}
    refused: dict[str, str] = {}
    with runner(processes, quiet=True) as runs:
        for trial, outcome in zip(trials, runs.run(trials)):
            if outcome.row is None:
                refused[trial.name] = outcome.refused
            else:
                rows.setdefault(trial.name, []).append(outcome.row)
    return {name: _tested(name, claim, rows, refused) for name, claim in claims.items()}


def _tested(name: str, claim: Paired, rows: Mapping[str, list[Row]], refused: Mapping[str, str]) -> Judged:
    values: dict[str, list[float]] = {}
    for side in claim.scenarios:
        key = f"{name} {side}"
        if key in refused:
            return Judged({}, None, refused[key])
        if claim.metric not in rows[key][0]:
            known = list(rows[key][0])
            raise InputError(f"claims.{name}.metric", claim.metric, nearest(claim.metric, known) + " | ".join(known))
        known_values = [value for row in rows[key] if (value := row[claim.metric]) is not None]
        if len(known_values) < len(rows[key]):
            return Judged({}, None, f"{claim.metric} is unknown with {' '.join(claim.scenarios[side])}")
        values[side] = known_values
    return Judged({side: interval(many) for side, many in values.items()}, paired(values[POLICY], values[INSTEAD]))


def _claim(claim: Paired, tested: Judged) -> Claim:
    if tested.difference is None:
        return Claim(claim.says, UNTESTED, tested.why_not)
    before, after = (cell_text(tested.values[side].mean) for side in (INSTEAD, POLICY))
    ends = f"[{cell_text(tested.difference.low)}, {cell_text(tested.difference.high)}]"
    evidence = f"{claim.metric} {before} -> {after}, difference {ends}. Published: {claim.published}; {claim.source}."
    return Claim(claim.says, tested.verdict(claim.rises), evidence)


def _tables(claims: Mapping[str, Paired], tested: Mapping[str, Judged], seeds: int) -> list[Table]:
    """What a terminal prints, and the same with intervals and sources for files."""
    short: list[tuple[Cell, ...]] = []
    long: list[tuple[Cell, ...]] = []
    for name, claim in claims.items():
        found, verdict = tested[name], tested[name].verdict(claim.rises)
        means = [found.values[side].mean if side in found.values else None for side in (INSTEAD, POLICY)]
        change = 100.0 * (means[1] / means[0] - 1.0) if means[0] and means[1] is not None else None
        ends = (None, None) if found.difference is None else (found.difference.low, found.difference.high)
        short.append((name, claim.metric, *means, change, verdict))
        long.append((name, claim.says, claim.metric, *means, *ends, claim.published, claim.source, verdict))
    caption = f"Without and with each policy: means of {seeds} common seeds"
    columns = ("claim", "metric", "without", "with", "change [%]", "verdict")
    wide = ("claim", "says", "metric", "without", "with", "difference low", "high", "published", "source", "verdict")
    return [
        Table("claims", caption, columns, short),
        Table("intervals", "The same, with paired 95 % intervals of the differences", wide, long, shown=False),
    ]


def _chart(claims: Mapping[str, Paired], tested: Mapping[str, Judged]) -> Chart:
    """Relative changes, as far as there are some."""
    names, changes = [], []
    for name in claims:
        found = tested[name]
        if found.difference is not None and found.values[INSTEAD].mean:
            names.append(f"{name}\n{claims[name].metric}")
            changes.append(100.0 * found.difference.mean / found.values[INSTEAD].mean)
    caption = "Relative change of the metric that a policy is said to move"
    return Chart("changes", caption, "bars", "", "change [%]", {"": {"with the policy": (names, changes)}})

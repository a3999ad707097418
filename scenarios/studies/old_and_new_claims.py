"""What was expected of an old GPU against a new one, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from analysis.study import FAILS, HOLDS, PARTLY, UNTESTED, Claim
from scenarios.studies.equal_batch import PHASES, pool_of, room
from scenarios.studies.old_and_new_study import ALONE, NEW, OLD, WITH_HOST, Setup, Study
from scenarios.studies.old_and_new_tables import shares_of
from sim.hardware.model import Model

Corner = tuple[Model, int]


def claims(study: Study) -> list[Claim]:
    """The hypotheses, each by all grids and both boundaries."""
    return [_batches(study), _models(study), _cleanest(study), _phases(study), _memory(study)]


def notes(study: Study) -> list[str]:
    """What a reader has to know."""
    old, new = study.names
    return [
        f"Where timing and power of {old} and {new} are assumed (`hybridfleet list xpus {old}` tells), "
        "ratios near 1 are within that doubt; the table of inputs varied says which.",
        "A batch of equal requests is there at once: no queue, no idle time, no network.",
    ]


def _verdict(agree: int, cases: int) -> str:
    return UNTESTED if not cases else HOLDS if agree == cases else PARTLY if agree else FAILS


def _batches(study: Study) -> Claim:
    """Small batches go to the old one, large ones to the new one, each model by itself."""
    setup, old, new = study.setups[ALONE], *study.names
    pairs = []
    for model in study.models:
        held = [size for size in study.sizes if all(setup.spent(model, which, size) for which in (OLD, NEW))]
        if len(held) > 1:
            pairs.append(((model, held[0]), (model, held[-1])))
    return _favour(study, f"Small batches favour {old}, large ones {new}", pairs, "largest batch that both hold")


def _models(study: Study) -> Claim:
    """Small models go to the old one, large ones to the new one, each batch by itself."""
    setup, old, new = study.setups[ALONE], *study.names
    ends = (study.models[0], study.models[-1])
    pairs = [
        ((ends[0], size), (ends[1], size))
        for size in study.sizes
        if ends[0] is not ends[1] and all(setup.spent(model, which, size) for model in ends for which in (OLD, NEW))
    ]
    return _favour(study, f"Small models favour {old}, large ones {new}", pairs, "largest model")


def _favour(study: Study, what: str, pairs: Sequence[tuple[Corner, Corner]], large: str) -> Claim:
    """Whether the old one is the greener one at the first of each pair, and the new one at the second."""
    old, new = study.names
    agree = dict.fromkeys((*PHASES, ALONE, WITH_HOST), 0)
    small_old, large_new, cases, rising = 0, 0, 0, 0
    for pair, (boundary, setup), phase, g in product(pairs, study.setups.items(), PHASES, study.grids.values()):
        first, last = (setup.ratio(*corner, phase, g) for corner in pair)
        assert first is not None
        assert last is not None
        cases, rising = cases + 1, rising + (last > first)
        small_old, large_new = small_old + (first < 1.0), large_new + (last > 1.0)
        agree[phase] += first < 1.0 < last
        agree[boundary] += first < 1.0 < last
    both = sum(agree[phase] for phase in PHASES)
    evidence = (
        f"Of {cases} cases (phase, grid, boundary): {old} is greener at the small end in {small_old}, {new} at "
        f"the {large} in {large_new}, both in {both} ({agree['prefill']} in prefill, {agree['decode']} in decode; "
        f"{agree[WITH_HOST]} with host). The ratio of {old} to {new} rises in {rising}."
    )
    return Claim(what, _verdict(both, cases), evidence)


def _cleanest(study: Study) -> Claim:
    """The embodied share is largest in the cleanest grid."""
    cleanest = min(study.grids, key=lambda name: study.grids[name])
    agree, cases, words = 0, 0, []
    for which, (boundary, setup) in product((OLD, NEW), study.setups.items()):
        by_grid = {name: list(shares_of(study, setup, which, g)) for name, g in study.grids.items()}
        for shares in zip(*by_grid.values()):
            cases += 1
            agree += max(shares) == dict(zip(by_grid, shares))[cleanest]
        most = {name: max(shares, default=float("nan")) for name, shares in by_grid.items()}
        dirtiest = max(study.grids, key=lambda name: study.grids[name])
        share = (
            f"{study.names[which]} {boundary}: {most[cleanest]:.1%} in {cleanest}, {most[dirtiest]:.1%} in {dirtiest}"
        )
        words.append(share)
    return Claim(
        f"The embodied share peaks in {cleanest}", _verdict(agree, cases), f"Largest shares: {'; '.join(words)}."
    )


def _phases(study: Study) -> Claim:
    """The best GPU is another one in prefill than in decode."""
    differing: dict[str, int] = {}
    counted: dict[str, int] = {}
    for (boundary, setup), model, batch, g_per_kwh in product(
        study.setups.items(), study.models, study.sizes, study.grids.values()
    ):
        ratios = [setup.ratio(model, batch, phase, g_per_kwh) for phase in PHASES]
        if ratios[0] is None or ratios[1] is None:
            continue
        counted[boundary] = counted.get(boundary, 0) + 1
        differing[boundary] = differing.get(boundary, 0) + ((ratios[0] < 1.0) != (ratios[1] < 1.0))
    words = "; ".join(f"{boundary}: in {differing[boundary]} of {n} cases" for boundary, n in counted.items())
    agree = sum(differing.values())
    verdict = (
        UNTESTED if not counted else FAILS if not agree else HOLDS if 2 * agree > sum(counted.values()) else PARTLY
    )
    return Claim("The best GPU differs for prefill and decode", verdict, f"{words} (model, batch, grid).")


def _memory(study: Study) -> Claim:
    """The old one runs out of memory with the largest model."""
    setup, model = study.setups[ALONE], study.models[-1]
    most = {which: _most(setup, model, which, setup.memory_share) for which in (OLD, NEW)}
    at_default = _most(setup, model, OLD, 0.9)
    verdict = FAILS if most[OLD] >= study.sizes[-1] else HOLDS if most[OLD] else PARTLY
    old, new = study.names
    evidence = (
        f"Room for {most[OLD]} sequences of {setup.prompt + setup.output} tokens on {old}, {most[NEW]} on {new}, where "
        f"the engine may take {setup.memory_share:.0%} of the memory; at 90 %, {at_default} on {old}."
    )
    return Claim(f"{study.names[OLD]} runs out of memory for {model.id} at large batches", verdict, evidence)


def _most(setup: Setup, model: Model, which: int, share: float) -> int:
    tokens = (setup.prompt, setup.output)
    return room(pool_of(model, setup.xpus[which], setup.precision, 1, tokens, share, setup.search), sum(tokens))

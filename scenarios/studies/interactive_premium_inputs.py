"""The preset of the interactive premium, read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from scenarios.deployment import pool_of
from scenarios.entries import Catalogue
from scenarios.schema import COUNT, POSITIVE, Section, anything, boolean, integer, list_of, number, text
from scenarios.size_inputs import scenario_file
from scenarios.studies.capacity import Bounds
from scenarios.studies.interactive_premium_study import MODES, TIMES, Logged, Setup, Study
from sim.errors import InputError
from sim.workload.lengths import LogNormal

_SHARE = number("a share in (0, 1)", above=0.0, high=1.0)


def read(preset: Section, search: tuple[Path, ...]) -> Study:
    """The preset as objects; what is varied is left to be read."""
    preset.need("program", text)
    keys = ("model", "xpu", "precision")
    stated: dict[str, Any] = {key: preset.need(key, text) for key in keys}
    stated |= {"kv_precision": preset.get("kv_precision", text, None)}
    stated |= {key: preset.need(key, COUNT) for key in ("tp", "replicas")}
    batches = [_batch(f"batches[{i}]", each) for i, each in enumerate(preset.need("batches", list_of(anything)))]
    if not batches:
        raise InputError("batches", [], "a list of at least one [max_num_seqs, max_num_batched_tokens]")
    engine = {"async_scheduling": preset.need("async_scheduling", boolean)}
    engine |= dict(zip(("max_num_seqs", "max_num_batched_tokens"), batches[0]))
    setup = Setup(
        pool_of(stated | {"engine": engine}, {}, search),
        law(preset.child("prompt")),
        law(preset.child("output")),
        _bounds(preset, search),
        preset.need("requests", integer(100)),
        preset.need("tried_requests", integer(100)),
        preset.need("warm", _SHARE),
        preset.need("seed", integer()),
        preset.need("steps", COUNT),
    )
    published = preset.child("published")
    known = {mode: published.need(mode, POSITIVE) for mode in MODES}
    published.finish()
    price = Catalogue(search).entry("xpu", stated["xpu"], "xpu").values.get("rent_usd_per_hour")
    return Study(
        preset.need("title", text),
        setup,
        batches,
        known,
        _logs(preset),
        preset.need("within", _SHARE),
        price,
        preset.need("processes", COUNT),
        search,
    )


def _logs(preset: Section) -> dict[str, Logged]:
    logs = {}
    for mode, section in preset.children("logs").items():
        if mode not in MODES[1:]:
            raise InputError(section.key, dict(section.values), " | ".join(MODES[1:]))
        logs[mode] = Logged(section.need("rate", POSITIVE), {name: section.need(name, POSITIVE) for name in TIMES})
        section.finish()
    return logs


def law(section: Section) -> LogNormal:
    """A log-normal law of lengths from its median, 99th percentile and maximum [tokens]."""
    median, p99 = (section.need(key, POSITIVE) for key in ("median", "p99"))
    most = section.need("maximum", COUNT)
    section.finish()
    if not median <= p99:
        raise InputError(section.path("p99"), p99, f"at least the median ({median:g})")
    return LogNormal(median=median, p99=p99, maximum=most)


def _batch(key: str, value: object) -> tuple[int, int]:
    pair = list_of(COUNT)(key, value)
    if len(pair) != 2 or pair[0] > pair[1]:
        raise InputError(key, value, "[max_num_seqs, max_num_batched_tokens], the second at least the first")
    return pair[0], pair[1]


def _bounds(preset: Section, search: tuple[Path, ...]) -> dict[str, Bounds]:
    """Bounds of the two modes: an entry of conf/slo each, whose one class says them."""
    share = preset.need("share", _SHARE)
    bounds = {}
    for mode in MODES[1:]:
        name = preset.need(mode, text)
        first = scenario_file("slo", name, mode, search)["classes"][0]
        limits = [first.get(key) or math.inf for key in ("ttft_s", "tpot_s")]
        bounds[mode] = Bounds(limits[0], limits[1], share)
    return bounds

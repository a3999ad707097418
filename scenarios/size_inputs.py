"""What `hybridfleet size` is asked: an entry of conf/sizing, changed on the command line, and the parts it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scenarios.build_fleet import build_fleet
from scenarios.deployment import POOL_KEYS, plain_keys
from scenarios.entries import Catalogue
from scenarios.schema import (
    POSITIVE,
    SHARE,
    Check,
    Section,
    boolean,
    integer,
    list_of,
    nearest,
    number,
    one_line,
    one_of,
    text,
)
from sim.accounting.job import JobRates, job_rates
from sim.errors import InputError
from sim.fleet.spec import Pool, Site
from sim.hardware.catalogue import CONF
from sim.hardware.lora import TARGETS
from sim.hardware.training import RECOMPUTATION, Layout, TrainingState
from sim.units import BYTES_PER_VALUE

GROUP = "sizing"
JOBS = ("training", "fine_tuning", "lora")
OWN_KEYS = ("sizing", "slo", "out")


@dataclass(frozen=True, slots=True)
class JobAsk:
    """A training job: see conf/sizing/default.yaml."""

    name: str
    tokens: float | None
    tokens_per_param: float | None
    sequence: int
    mfu: float
    days: float
    xpus: int | None


@dataclass(frozen=True, slots=True)
class LoraAsk:
    """Adapters: rank, targets (None for all there are) and format of the frozen weights."""

    rank: int
    targets: tuple[str, ...] | None
    base_precision: str


@dataclass(frozen=True, slots=True)
class InferenceAsk:
    """A load and how it is measured: see conf/sizing/default.yaml."""

    rate: float
    lengths: str
    prompt: int | None
    output: int | None
    attainment: float
    requests: int
    seed: int


@dataclass(frozen=True, slots=True)
class SizeInputs:
    """Everything that is asked, whatever the model.

    Attributes:
        values: keys of conf/sizing with the user's changes; for whoever wants to see them.
        jobs: training, full fine-tuning and adapters, by name.
        lora, inference, layout, layout_tp, state, utilization, attention, power_share: see conf/sizing/default.yaml.
        node_xpus, node_price_ratio: xPUs of a whole node, and its price over that of its xPUs.
        slo: id of conf/slo.
        given: keys of the pool that the user set; site: those of the place.
        search: further folders of the catalogue.
    """

    values: Mapping[str, Any]
    jobs: Mapping[str, JobAsk]
    lora: LoraAsk
    inference: InferenceAsk
    layout: Layout
    layout_tp: int | None
    state: TrainingState
    utilization: float
    attention: bool
    power_share: float
    node_xpus: int
    node_price_ratio: float
    slo: str
    given: Mapping[str, Any]
    site: Mapping[str, Any]
    search: tuple[Path, ...]


def read_inputs(
    given: Mapping[str, Any], search: Sequence[Path] = (), slo: str = "chat_relaxed", also: Sequence[str] = ()
) -> SizeInputs:
    """Check what the command line gives, but for models.

    Args:
        given: dotted keys of conf/sizing (``training.tokens``), keys of a pool (``xpu``, ``engine.block_size``) and of
            the place (``grid``, ``pue``, ``host``, ``cost``, ``embodied``); and `sizing`, an entry.
        search: further folders of the catalogue.
        slo: id of conf/slo.
        also: keys that whoever calls knows besides, to be named to whoever mistypes one.

    Raises:
        InputError: a key or value cannot be used.
    """
    entries = Catalogue(tuple(search))
    entry = entries.entry(GROUP, text("sizing", given.get("sizing", "default")), "sizing")
    values = deepcopy(dict(entry.values))
    pool: dict[str, Any] = {}
    for key, value in given.items():
        if key in POOL_KEYS or key.startswith("engine."):
            pool[key] = value
        elif key in values["site"]:
            values["site"][key] = value
        elif key not in OWN_KEYS:
            further = (*POOL_KEYS, *values["site"], *OWN_KEYS, *also)
            put(values, key, _list(value) if key == "lora.targets" else value, further, "sizings default")
    top = Section(values, "")
    site = dict(top.child("site").values)
    layout, inference = top.child("layout"), top.child("inference")
    node = top.child("node")
    return SizeInputs(
        values,
        {name: _job(name, top.child(name)) for name in JOBS},
        _lora(top.child("lora")),
        _inference(inference),
        _layout(layout),
        layout.get("tp", integer(1), None),
        _state(top.child("states")),
        layout.need("utilization", SHARE),
        layout.need("attention", boolean),
        top.need("power_share", SHARE),
        node.need("xpus", integer(1)),
        node.need("price_ratio", number("a ratio of at least 1", low=1.0)),
        slo,
        pool,
        site,
        tuple(search),
    )


def _list(value: Any) -> Any:
    """A list as a shell passes it, ``q,v`` or ``[q,v]``."""
    return [part.strip() for part in value.strip("[]").split(",")] if isinstance(value, str) else value


def put(values: dict[str, Any], key: str, value: Any, also: Sequence[str], listed: str) -> None:
    """Set a dotted key that exists; whoever mistypes one is told of those, of `also`, and of what `listed` shows."""
    node: Any = values
    *above, last = key.split(".")
    for part in above:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node or isinstance(node[last], dict):
        known = [*dotted(values), *also]
        raise InputError(key, value, f"no such key; {nearest(key, known)}see `hybridfleet list {listed}`")
    node[last] = value


def dotted(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys of all that is no mapping."""
    keys = []
    for name, value in values.items():
        keys += dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return keys


def _job(name: str, job: Section) -> JobAsk:
    return JobAsk(
        name,
        job.get("tokens", POSITIVE, None),
        job.get("tokens_per_param", POSITIVE, None),
        job.need("sequence", integer(1)),
        job.need("mfu", SHARE),
        job.need("days", POSITIVE),
        job.get("xpus", integer(1), None),
    )


def _lora(lora: Section) -> LoraAsk:
    targets = lora.get("targets", list_of(one_of(*TARGETS)), None)
    return LoraAsk(
        lora.need("rank", integer(1)),
        None if targets is None else tuple(targets),
        lora.need("base_precision", one_of(*BYTES_PER_VALUE)),
    )


def _inference(inference: Section) -> InferenceAsk:
    ask = InferenceAsk(
        inference.need("rate", POSITIVE),
        inference.need("lengths", text),
        inference.get("prompt", integer(1), None),
        inference.get("output", integer(2), None),
        inference.need("attainment", SHARE),
        inference.need("requests", integer(50)),
        inference.get("seed", integer(), 0),
    )
    if (ask.prompt is None) != (ask.output is None):
        raise InputError("inference.prompt", ask.prompt, "both inference.prompt and inference.output, or neither")
    return ask


def _layout(layout: Section) -> Layout:
    return Layout(
        1,
        int(layout.need("zero", one_of_numbers(0, 1, 2, 3))),
        layout.need("micro_batch", integer(1)),
        recomputation=layout.need("recomputation", one_of(*RECOMPUTATION)),
    )


def one_of_numbers(*numbers: int) -> Check[int]:
    """One of a few whole numbers."""

    def check(key: str, value: object) -> int:
        if isinstance(value, bool) or value not in numbers:
            raise InputError(key, value, " | ".join(map(str, numbers)))
        return int(value)  # type: ignore[call-overload, no-any-return]

    return check


def _state(states: Section) -> TrainingState:
    size = number("a number >= 0 bytes a parameter", low=0.0)
    keys = ("weight_bytes", "gradient_bytes", "optimizer_bytes")
    return TrainingState(*(states.need(key, size) for key in keys))


def scenario_file(group: str, name: str, key: str, search: Sequence[Path]) -> dict[str, Any]:
    """A file of a group of scenarios, such as ``slo``: they have their notes apart and are no catalogue entries."""
    folders = [Path(folder) / group for folder in (*search, CONF)]
    path = next((path for path in (folder / f"{name}.yaml" for folder in folders) if path.is_file()), None)
    if path is None:
        known = sorted({each.stem for folder in folders for each in folder.glob("*.yaml")})
        raise InputError(key, name, f"{nearest(str(name), known)}{' | '.join(known)}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(key, name, f"a YAML file that parses ({one_line(error)})", str(path)) from error
    if not isinstance(content, dict):
        raise InputError(key, name, "a mapping of keys to values", str(path))
    return content


def place_of(model: str, inputs: SizeInputs) -> tuple[Pool, Site, JobRates, float | None]:
    """The pool of one replica, its site, what a job on its xPUs takes, and the price of an xPU [USD], if known."""
    entries = Catalogue(inputs.search)
    given = dict(inputs.given)
    xpu, entry = entries.xpu(text("xpu", given.get("xpu")), "xpu")
    engine = {key.removeprefix("engine."): given.pop(key) for key in list(given) if key.startswith("engine.")}
    if given.get("precision") is None:
        given["precision"] = "bf16" if "bf16" in xpu.weight_formats else "fp16"
    pue = number("a ratio of at least 1; sizing takes no PUE that varies", low=1.0)("pue", inputs.site.get("pue"))
    values = {"kind": "cloud", **inputs.site, **given, "model": model, "engine": engine}
    with plain_keys({**given, **inputs.site, "model": model}, None):
        site = build_fleet(Section(values, "fleet"), entries).sites[0]
    pool = site.pools[0]
    price = entry.values.get("purchase_usd")
    return pool, site, job_rates(pool, site.intensity, pue, inputs.power_share), price

"""What a record of a real deployment names, as the simulator's own objects: its xPU, its pool, and the requests it saw.

Used where measurements are replayed: one pool without a network serves a fixed list of requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenarios.build_fleet import SINGLE, build_fleet
from scenarios.entries import Catalogue
from scenarios.schema import Section
from sim.errors import InputError
from sim.fleet.spec import Fleet, Pool, Site
from sim.hardware import catalogue
from sim.qoe import SLOClass
from sim.results import Result
from sim.rng import Streams
from sim.routing.load import LeastOutstanding
from sim.simulation import run
from sim.workload.base import RequestBatch

#: What a user may set beside the `engine.*` settings, in place of what a record states.
POOL_KEYS = (
    *("xpu", "model", "tp", "pp", "dp", "expert_parallel", "interconnect", "node_xpus", "internode"),
    *("precision", "kv_precision", "stack", "draft"),
)
#: Words that tell boards of one chip apart; a name that has one of them means no entry that lacks it.
_VARIANTS = ("pcie", "nvl", "laptop", "mobile", "maxq", "pcap")
_SOCKETS = re.compile(r"sxm\d*")
_GIGABYTES = re.compile(r"(\d+)g(?:i?b)?")
#: A device reports a little less memory than its maker states (0.980 of it on an RTX 4090).
_MEMORY_TOLERANCE = 0.1


def xpu_named(hint: str, search: Sequence[Path] = (), memory_bytes: float | None = None, largest: bool = False) -> str:
    """Id of the xPU that a text names: ``h100_sxm`` for "NVIDIA H100 80GB HBM3", ``rtx_4090`` for "rtx4090_run1".

    Words are compared whole, as they stand together or apart; an entry gives way to one whose name contains its own.
    Where only the memory tells entries apart, its size in the text or as reported decides.

    Args:
        hint: name of a device or of a folder.
        search: further folders of entries.
        memory_bytes: memory the device reported, to catch a board of the same name with another size [bytes].
        largest: where nothing tells the sizes of one board apart, take the one with the most memory.

    Raises:
        InputError: no entry or several fit; the message asks for ``xpu=``.
    """
    accepted = "a device of the catalogue, or xpu=ID beside it; see `hybridfleet list xpus`"
    split = re.findall(r"[a-z0-9]+", hint.lower())
    words = [re.sub(r"^(\d+)g$", r"\1gb", word) for word in split if not _SOCKETS.fullmatch(word)]
    sizes = {f"{number}gb" for number in re.findall(r"(\d+)\s*g(?:i?b)?\b", hint.lower())}
    variants = {word for word in words if word in _VARIANTS}
    words = [word for word in words if word not in variants]
    joined = {"".join(words[start:end]) for end in range(1, len(words) + 1) for start in range(end)}
    boards: list[tuple[str, str, set[str], bool]] = []  # entry, chip, its size where the name has one, named in full
    for name in catalogue.list_entries("xpu", search):
        parts = [part for part in name.lower().split("_") if not _SOCKETS.fullmatch(part)]
        if variants != {part for part in parts if part in _VARIANTS}:
            continue
        parts = [part for part in parts if part not in _VARIANTS]
        chip = "".join(part for part in parts if not _GIGABYTES.fullmatch(part))
        if chip in joined or "".join(parts) in joined:
            boards.append((name, chip, {p for p in parts if _GIGABYTES.fullmatch(p)}, "".join(parts) in joined))
    # a bare number is a size where a board comes in it: A100-80
    sizes |= {f"{word}gb" for word in split} & {size for _, _, size_of, _ in boards for size in size_of}
    found = {name: chip for name, chip, size, whole in boards if whole or size <= sizes or not sizes}
    best = [name for name, key in found.items() if not any(key != other and key in other for other in found.values())]
    if len(best) > 1 and memory_bytes is not None:
        best = [name for name in best if _fits(name, memory_bytes, search)] or best
    if len(best) > 1 and largest and len({found[name] for name in best}) == 1:
        best = [max(best, key=lambda name: catalogue.xpu(name, search).memory_bytes)]
    if len(best) != 1:
        raise InputError("xpu", hint, f"{accepted} ({' and '.join(best)} fit)" if best else accepted)
    stated = catalogue.xpu(best[0], search).memory_bytes
    if memory_bytes is not None and not _fits(best[0], memory_bytes, search):
        raise InputError("xpu", hint, f"{accepted} ({best[0]} has {stated:.4g} bytes, the device {memory_bytes:.4g})")
    return best[0]


def _fits(name: str, memory_bytes: float, search: Sequence[Path]) -> bool:
    """Whether an entry has about the memory that a device reports."""
    return abs(memory_bytes / catalogue.xpu(name, search).memory_bytes - 1.0) <= _MEMORY_TOLERANCE


def pool_of(
    stated: Mapping[str, Any], given: Mapping[str, Any], search: Sequence[Path] = (), where: str | None = None
) -> Pool:
    """The pool that a record describes.

    Args:
        stated: keys of a pool as the record has them, `engine` a mapping.
        given: the user's own, which replace them; engine settings as ``engine.NAME``.
        search: further folders of entries.
        where: the record, named in errors about what it states.

    Raises:
        InputError: the pool cannot be built.
    """
    values = {key: value for key, value in stated.items() if key != "engine"}
    values |= {key: value for key, value in given.items() if key in POOL_KEYS}
    engine = dict(stated.get("engine", {}))
    engine |= {key.removeprefix("engine."): value for key, value in given.items() if key.startswith("engine.")}
    if not engine.get("speculative_tokens") and "draft" not in given:
        values.pop("draft", None)  # the user's settings draft nothing
    catalogue = Catalogue(tuple(search))
    with plain_keys(given, where):
        values = _ranks_apart(values, catalogue)
        section = Section({"kind": "cloud", "grid": 0, **values, "engine": engine}, "fleet")
        return build_fleet(section, catalogue).pools[0]


def _ranks_apart(values: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """Keys of a pool in which data-parallel ranks that share no experts, those of a dense model, are replicas."""
    dp, name = values.get("dp", 1), values.get("model")
    if not isinstance(dp, int) or dp <= 1 or values.get("expert_parallel") or not isinstance(name, str):
        return values
    if catalogue.model(name, "model").experts:
        raise InputError("dp", dp, "1, or expert_parallel: experts of which each rank keeps a part are not modelled")
    return values | {"dp": 1, "replicas": dp}


@contextmanager
def plain_keys(given: Mapping[str, Any], where: str | None) -> Iterator[None]:
    """Name settings as the user may give them (``engine.kv_blocks``), and the record they come from where he did not.

    The pool is the only one, so the path to it would only puzzle.
    """
    try:
        yield
    except InputError as error:
        key = error.key
        for prefix in ("fleet.", f"pools.{SINGLE}."):
            key = key.removeprefix(prefix)
        raise InputError(key, error.value, error.accepted, error.where or (None if key in given else where)) from error


@dataclass(slots=True)
class Requests:
    """A workload of given requests, in order of arrival.

    Attributes:
        arrival_s: when they come, never decreasing [s].
        prompt, output: lengths [tokens].
        cached: prompt tokens found in a prefix cache, or None for none.
        prefix_unit: tokens a block where an engine caches prefixes, 0 where it does not.
        texts: the prompts themselves, as token ids, or None where they are not known. Prompts are then taken for
            distinct: only who was preempted finds its own prompt again.
        slo_classes: one class without bounds: what users expect is no part of a record.
    """

    arrival_s: npt.NDArray[np.float64]
    prompt: npt.NDArray[np.int64]
    output: npt.NDArray[np.int64]
    cached: npt.NDArray[np.int64] | None = None
    prefix_unit: int = 0
    texts: Sequence[Sequence[int]] | None = None
    slo_classes: tuple[SLOClass, ...] = (SLOClass(),)

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        """Yield them all at once: records are small."""
        classes = np.zeros(len(self.arrival_s), dtype=np.int64)
        yield RequestBatch(self.arrival_s, self.prompt, self.output, classes, self.cached, self._hashes())

    def _hashes(self) -> list[tuple[int, ...]] | None:
        """A name for every full block of every prompt; equal blocks behind equal ones share it, where that is known."""
        unit = self.prefix_unit
        if not unit:
            return None
        if self.texts is not None:
            names: dict[tuple[int, tuple[int, ...]], int] = {}
            return [tuple(_named(text, unit, names)) for text in self.texts]
        ends = np.cumsum(self.prompt // self.prefix_unit).tolist()
        return [tuple(range(start, end)) for start, end in zip([0, *ends], ends)]

    def expected_requests(self) -> float:
        """How many there are."""
        return len(self.arrival_s)


def _named(text: Sequence[int], unit: int, names: dict[tuple[int, tuple[int, ...]], int]) -> Iterator[int]:
    name = -1
    for end in range(unit, len(text) + 1, unit):
        name = names.setdefault((name, tuple(text[end - unit : end])), len(names))
        yield name


def serve(pool: Pool, requests: Requests, bin_s: float | None = None) -> Result:
    """Let one pool serve the requests, as the engine sees them: no network and no front end.

    Args:
        pool: who serves.
        requests: what comes.
        bin_s: width of the timeline's bins [s].
    """
    # a preempted prompt that finds itself again matters less than memory that windows give back
    if pool.engine.prefix_caching and requests.cached is None and not pool.frees_windows:
        requests = replace(requests, prefix_unit=pool.engine.block_size)
    fleet = Fleet((Site(SINGLE, "cloud", (pool,)),))
    return run(fleet, requests, LeastOutstanding(), timeline_bin_s=bin_s)

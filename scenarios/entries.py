"""What the catalogue knows of the parts that a configuration names, and a record of what was taken from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scenarios.schema import nearest
from sim.errors import InputError
from sim.hardware import catalogue
from sim.hardware.catalogue import Entry
from sim.hardware.clock_law import ClockLaw
from sim.hardware.collectives import Interconnect
from sim.hardware.model import Model
from sim.hardware.xpu import XPU


class Catalogue:
    """The packaged entries and the user's own, and a record of what was taken from them.

    Attributes:
        kinds: how many known values of the entries in use are measured, published, derived or assumed.
        files: data files that were read besides.
    """

    def __init__(self, search: tuple[Path, ...] = ()) -> None:
        self.search = search
        self.kinds: Counter[str] = Counter()
        self.files: list[Path] = []
        self._seen: set[Path] = set()

    def entry(self, group: str, name: str, key: str) -> Entry:
        """One entry, which the configuration names at `key`; its values are counted the first time."""
        try:
            entry = catalogue.load_entry(group, name, self.search)
        except InputError as error:
            named = key if error.key == group else error.key
            raise InputError(named, error.value, error.accepted, error.where) from error
        if entry.path not in self._seen:
            self._seen.add(entry.path)
            known = (kind for path, (_, _, kind) in entry.provenance.items() if at(entry.values, path) is not None)
            self.kinds.update(known)
        return entry

    def xpu(self, name: str, key: str) -> tuple[XPU, Entry]:
        """An accelerator, and its entry for prices and published carbon."""
        entry = self.entry("xpu", name, key)
        return catalogue.xpu(entry.id, self.search), entry

    def on_stack(self, xpu: XPU, name: str | None, key: str) -> XPU:
        """The xPU with the overheads of a serving stack, or as its own entry says."""
        if name is None:
            return xpu
        return catalogue.with_stack(xpu, self.entry("stack", name, key).id, self.search)

    def clock_law(self, name: str, key: str) -> ClockLaw:
        """What lower clocks do to speed and power, by id."""
        return catalogue.clock_law(self.entry("clock_law", name, key).id, self.search)

    def model(self, name: str, key: str) -> Model:
        """A model by id, Hugging Face name or alias."""
        return catalogue.model(self.entry("model", name, key).id, self.search)

    def interconnect(self, name: str | None, key: str) -> Interconnect | None:
        """What joins xPUs, by id; None for what their own entry has."""
        if name is None:
            return None
        entry = self.entry("interconnect", name, key)
        values = (entry.values.get("bytes_per_s"), entry.values.get("latency_s"))
        speed, latency = (value if isinstance(value, (int, float)) else -1.0 for value in values)
        return Interconnect(entry.id, speed, latency, str(entry.path))

    def link(self, name: str, key: str) -> dict[str, Any]:
        """Fields of a link by id, or of the link that an interconnect makes: what it carries, each way."""
        if name in catalogue.list_entries("interconnect", self.search):
            made = self.interconnect(name, key)
            speed = made.bytes_per_s if made is not None else None
            latency = made.latency_s if made is not None else None
            return {"latency_s": latency, "up_bytes_per_s": speed, "down_bytes_per_s": speed, "shared": True}
        if name not in (known := catalogue.list_entries("link", self.search)):
            known += catalogue.list_entries("interconnect", self.search)
            raise InputError(key, name, f"{nearest(name, known)}see `hybridfleet list links` and `... interconnects`")
        return dict(self.entry("link", name, key).values)

    def note(self, about: object) -> None:
        """Count the values whose sources a configuration file tells under `about`."""
        if isinstance(about, Mapping):
            if "kind" in about and about.get("value", "") is not None:
                self.kinds[str(about["kind"])] += 1
            for value in about.values():
                self.note(value)
        elif isinstance(about, list):
            for value in about:
                self.note(value)


def at(values: Mapping[str, Any], key: str) -> Any:
    """Value under a dotted key, or None."""
    node: Any = values
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node

"""The catalogue: one YAML file an entry under ``conf/<group>/<id>.yaml``, each constant with unit, source and kind.

A constant is a mapping ``{value, unit, source, kind}`` (and optionally `as_of` and `note`); what is unknown has the
value null. Everything else in a file is plain text such as a name. Units of xPUs and models are read, not decoration:
they convert the value to the SI unit of its key, and a unit that does not fit the key is refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sim.errors import InputError
from sim.hardware.clock_law import BITS_PER_BYTE, ClockLaw
from sim.hardware.keys import MODEL_KEYS, STACK_KEYS, TEXT_KEYS, XPU_KEYS, Units, convert
from sim.hardware.model import Model, Vision
from sim.hardware.xpu import XPU, PowerCoefficients, TimingCoefficients

KINDS = ("measured", "published", "derived", "assumed")  #: from the firmest to the weakest ground
#: The shipped entries. Found from this file and not by the name `conf`, which a folder of the user's could shadow.
CONF = Path(__file__).resolve().parents[2] / "conf"

Provenance = Mapping[str, tuple[str, str, str]]
Built = TypeVar("Built")

_LEAF = ("value", "unit", "source", "kind")
_OPTIONAL = ("as_of", "note")
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
#: Words of a model's name that tell builds of one shape apart.
_BUILDS = frozenset(
    (
        *("instruct", "chat", "it", "base", "pt", "hf", "meta"),
        *("fp16", "bf16", "fp8", "int8", "fp4", "mxfp4", "nvfp4", "int4", "4bit", "8bit", "w8a8", "w8a16", "w4a16"),
        *("awq", "gptq", "gguf", "bnb", "mlx", "marlin", "quantized", "dynamic", "static", "pertensor", "g128"),
    )
)
_NAME_LINE = re.compile(r"^(?:hf_id|aliases):(.*)$", re.MULTILINE)
_KEYS: Mapping[str, Mapping[str, Units]] = {"xpu": XPU_KEYS, "model": MODEL_KEYS, "stack": STACK_KEYS}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe, fast where libyaml is there, and taking 1e9 for a number, which YAML 1.1 reads as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the catalogue.

    Attributes:
        group, id: folder and file name without suffix.
        values: the file's content with each constant replaced by its value (in groups `xpu` and `model` in the unit of
            its key); nested as in the file.
        provenance: (unit, source, kind) by dotted key, for every constant.
        path: the file.
    """

    group: str
    id: str
    values: Mapping[str, Any]
    provenance: Provenance
    path: Path


def load_entry(group: str, name: str, search: Iterable[str | Path] = ()) -> Entry:
    """Read one entry by id; a model also by its Hugging Face name or an alias, in any case of letters, and by the name
    of another build of the same shape, such as a quantized or fine-tuned one that keeps the model's own name.

    Args:
        group: folder of the catalogue, such as ``xpu``.
        name: id of the entry.
        search: further folders laid out as ``<folder>/<group>/<id>.yaml``, looked in before the shipped catalogue.

    Raises:
        InputError: there is no such entry, or its file is malformed.
    """
    if not isinstance(name, str):
        raise InputError(group, name, f"the name of an entry, as text; see `hybridfleet list {group}s`")
    folders = [*(Path(folder) / group for folder in search), CONF / group]
    if _ID.fullmatch(name):
        for path in (folder / f"{stem}.yaml" for folder in folders for stem in dict.fromkeys((name, name.lower()))):
            if path.is_file():
                return _read(group, path)
    if group == "model":
        found = _model_by_name(name.strip().lower(), folders) or _model_by_shape(name, folders)
        if found is not None:
            return found
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    close = difflib.get_close_matches(re.sub(r"[^a-z0-9]+", "_", name.lower()), known, n=3, cutoff=0.4)
    hint = f"closest: {', '.join(close)}; " if close else ""
    raise InputError(group, name, f"{hint}see `hybridfleet list {group}s`")


def list_entries(group: str, search: Iterable[str | Path] = ()) -> list[str]:
    """Ids of all entries of a group, sorted."""
    folders = [*(Path(folder) / group for folder in search), CONF / group]
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def xpu(name: str, search: Iterable[str | Path] = ()) -> XPU:
    """An accelerator of the catalogue by id; see `load_entry`."""
    entry = load_entry("xpu", name, search)
    fields = {"name": entry.id, "peak_flops": {}, **entry.values}
    fields["timing"] = _construct(entry, TimingCoefficients, entry.values.get("timing", {}), "timing.")
    fields["power"] = _construct(entry, PowerCoefficients, entry.values.get("power", {}), "power.")
    return _construct(entry, XPU, {**fields, "id": entry.id, "provenance": entry.provenance})


def with_stack(chip: XPU, name: str, search: Iterable[str | Path] = ()) -> XPU:
    """The xPU as a serving stack of the catalogue drives it: with the stack's overheads, where that states any."""
    entry = load_entry("stack", name, search)
    own = {key: value for key, value in entry.values.items() if key in STACK_KEYS and value is not None}
    origin = {f"timing.{key}": entry.provenance[key] for key in own}
    timing = dataclasses.replace(chip.timing, **own)
    return dataclasses.replace(chip, timing=timing, provenance={**chip.provenance, **origin})


def clock_law(name: str = "dvfs", search: Iterable[str | Path] = ()) -> ClockLaw:
    """What lower clocks do to speed and power, by id; see `load_entry`."""
    entry = load_entry("clock_law", name, search)
    memory = entry.values.get("memory_pj_per_bit", {})
    by_type = {kind: value * 1e-12 * BITS_PER_BYTE for kind, value in memory.items() if isinstance(value, (int, float))}
    return _construct(entry, ClockLaw, {**entry.values, "memory_j_per_byte": by_type})


def model(name: str, search: Iterable[str | Path] = ()) -> Model:
    """A model of the catalogue by id, Hugging Face name or alias; see `load_entry`."""
    entry = load_entry("model", name, search)
    fields = {**entry.values, "aliases": tuple(entry.values.get("aliases", ()))}
    if "vision" in fields:
        fields["vision"] = _construct(entry, Vision, fields["vision"], "vision.")
    return _construct(entry, Model, {**fields, "id": entry.id, "provenance": entry.provenance})


def _construct(entry: Entry, cls: type[Built], fields: Mapping[str, Any], prefix: str = "") -> Built:
    """Build a dataclass out of those fields it has; errors name the missing key and the file."""
    known = dataclasses.fields(cls)  # type: ignore[arg-type]
    given = {f.name: fields[f.name] for f in known if fields.get(f.name) is not None}
    for f in known:
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and f.name not in given:
            raise InputError(f"{prefix}{f.name}", None, f"a value: every {entry.group} needs one", str(entry.path))
    try:
        return cls(**given)
    except InputError as error:
        raise InputError(error.key, error.value, error.accepted, str(entry.path)) from None


def _model_by_name(name: str, folders: Iterable[Path]) -> Entry | None:
    """The model whose Hugging Face name or alias is `name`. Only files that contain the name are parsed."""
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        if name in path.read_text(encoding="utf-8", errors="replace").lower():
            entry = _read("model", path)
            if name in {alias.lower() for alias in (entry.values.get("hf_id", ""), *entry.values.get("aliases", ()))}:
                return entry
    return None


def _shape_words(name: str) -> tuple[str, ...]:
    """The words of a name that tell shapes apart: ``llama 3.1 8b`` of RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8."""
    words = re.findall(r"[a-z0-9]+(?:\.\d+[a-z0-9]*)*", name.strip().lower().rpartition("/")[2])
    return tuple(word for word in words if word not in _BUILDS)


def _model_by_shape(name: str, folders: Iterable[Path]) -> Entry | None:
    """The model that this names a build of; None if none, or several, share its words."""
    words = _shape_words(name)
    found: dict[str, Path] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        lines = _NAME_LINE.findall(path.read_text(encoding="utf-8", errors="replace"))
        names = (each.strip(" []'\"") for line in lines for each in line.split(","))
        if words and any(_shape_words(each) == words for each in names):
            found.setdefault(path.stem, path)
    return _read("model", next(iter(found.values()))) if len(found) == 1 else None


def _read(group: str, path: Path) -> Entry:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path} line {mark.line + 1}" if mark else str(path)
        raise InputError(group, path.stem, f"well-formed YAML ({getattr(error, 'problem', error)})", where) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(group, path.stem, f"a readable file in UTF-8 ({error})", str(path)) from None
    if not isinstance(content, dict):
        raise InputError(group, path.stem, "a mapping of keys to constants", str(path))
    provenance: dict[str, tuple[str, str, str]] = {}
    values = _strip(content, "", provenance, _KEYS.get(group), str(path))
    if group == "model" and not all(isinstance(alias, str) for alias in values.get("aliases", ())):
        raise InputError("aliases", values["aliases"], "a list of names, as text", str(path))
    return Entry(group, path.stem, values, provenance, path)


def _strip(
    node: Mapping[str, Any],
    prefix: str,
    provenance: dict[str, tuple[str, str, str]],
    keys: Mapping[str, Units] | None,
    where: str,
) -> dict[str, Any]:
    """Replace every constant below `node` by its value, and file its origin under its dotted key."""
    values: dict[str, Any] = {}
    for name, item in node.items():
        key = f"{prefix}{name}"
        if isinstance(item, dict) and "value" in item:
            values[name] = _value(key, item, keys, where)
            provenance[key] = (item["unit"], item["source"], item["kind"])
        elif isinstance(item, dict):
            values[name] = _strip(item, f"{key}.", provenance, keys, where)
        elif keys is not None and key not in TEXT_KEYS:
            known = difflib.get_close_matches(key, [*keys, *TEXT_KEYS], n=3, cutoff=0.0)
            accepted = (
                "a mapping {value, unit, source, kind}" if key in keys else f"closest known keys: {', '.join(known)}"
            )
            raise InputError(key, item, accepted, where)
        else:
            values[name] = item
    return values


def _value(key: str, item: Mapping[str, Any], keys: Mapping[str, Units] | None, where: str) -> Any:
    """The value of one constant, checked; converted to the unit of its key where `keys` defines one."""
    for part in _LEAF:
        if part not in item:
            raise InputError(f"{key}.{part}", None, "value, unit, source and kind for every constant", where)
        if part != "value" and not (isinstance(item[part], str) and item[part].strip()):
            raise InputError(f"{key}.{part}", item[part], "text that is not empty", where)
    for part in item:
        if part not in (*_LEAF, *_OPTIONAL):
            raise InputError(f"{key}.{part}", item[part], " | ".join((*_LEAF, *_OPTIONAL)), where)
    if item["kind"] not in KINDS:
        raise InputError(f"{key}.kind", item["kind"], " | ".join(KINDS), where)
    if keys is None:
        return item["value"]
    if key not in keys:
        close = difflib.get_close_matches(key, list(keys), n=3, cutoff=0.0)
        raise InputError(key, item["value"], f"closest known keys: {', '.join(close)}", where)
    if item["unit"] not in keys[key]:
        raise InputError(f"{key}.unit", item["unit"], " | ".join(keys[key]), where)
    try:
        return convert(key, item["value"], item["unit"], keys[key])
    except TypeError as error:
        raise InputError(key, item["value"], str(error), where) from None

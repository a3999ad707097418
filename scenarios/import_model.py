"""``hybridfleet import-model config.json``: turn a Hugging Face config into an entry of the model catalogue."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scenarios.hf_config import FULL, LINEAR, NONE, WINDOW, HFConfig
from scenarios.hf_params import count_parameters
from scenarios.listing import Parser
from sim.errors import InputError

Leaf = dict[str, object]

_DERIVED = "counted from the dimensions of this entry, matrix by matrix"


def import_config(config: object, source: str) -> dict[str, Any]:
    """Turn a parsed ``config.json`` into a catalogue entry.

    Args:
        config: the parsed file.
        source: where it comes from, for every value's `source`.

    Returns:
        The entry, ready to be written as YAML.

    Raises:
        InputError: the config is not one of a decoder-only language model, or lacks a dimension.
    """
    hf = HFConfig.read(config)
    params = count_parameters(hf)
    kinds, moe = hf.layer_kinds(), hf.moe_layers()
    entry: dict[str, Any] = {}

    def published(key: str, value: object, unit: str) -> None:
        entry[key] = {"value": value, "unit": unit, "source": source, "kind": "published"}

    def derived(key: str, value: object, unit: str) -> None:
        entry[key] = {"value": value, "unit": unit, "source": _DERIVED, "kind": "derived"}

    published("layers", hf.layers, "count")
    published("hidden", hf.hidden, "values")
    published("heads", hf.heads, "count")
    for key, (value, unit) in _attention(hf, kinds).items():
        published(key, value, unit)
    published("vocab", hf.vocab, "count")
    published("max_context", hf.max_context, "tokens")
    if hf.experts:
        published("experts", hf.experts, "count")
        published("experts_per_token", hf.experts_per_token, "count")
        published("moe_layers", sum(moe), "count")
        derived("expert_params", params.expert, "parameters")
    derived("params", params.total, "parameters")
    derived("params_active", params.active, "parameters")
    derived("embedding_params", params.embedding, "parameters")
    published("checkpoint_precision", hf.checkpoint_precision(), "text")
    notes = _notes(hf)
    return {"note": notes, **entry} if notes else entry


def _attention(hf: HFConfig, kinds: Sequence[str]) -> dict[str, tuple[object, str]]:
    """The keys of an entry that describe attention, each with its unit."""
    windowed, without = kinds.count(WINDOW), kinds.count(LINEAR) + kinds.count(NONE)
    keys: dict[str, tuple[object, str]]
    if hf.mla:
        keys = {
            "attention": ("mla", "text"),
            "kv_heads": (1, "count"),
            "head_dim": (hf.count("v_head_dim"), "values"),
            "kv_lora_rank": (hf.count("kv_lora_rank"), "values"),
            "rope_dim": (hf.count("qk_rope_head_dim"), "values"),
        }
    else:
        wide = FULL in kinds and hf.text.get("global_head_dim")
        heads = hf.count("num_global_key_value_heads", default=hf.kv_heads) if wide else hf.kv_heads
        keys = {
            "attention": ("mha" if heads == hf.heads else "gqa", "text"),
            "kv_heads": (heads, "count"),
            "head_dim": (hf.count("global_head_dim") if wide else hf.head_dim, "values"),
        }
        if wide and windowed:
            keys |= {"window_kv_heads": (hf.kv_heads, "count"), "window_head_dim": (hf.head_dim, "values")}
    if windowed:
        keys |= {"window": (hf.window, "tokens"), "window_layers": (windowed, "count")}
        if hf.text.get("index_topk"):
            keys["sparse_attention"] = (True, "flag")
    if without:
        keys["linear_layers"] = (without, "count")
    return keys


def _notes(hf: HFConfig) -> str:
    """What the entry leaves out of this config."""
    notes = []
    if hf.text.get("index_topk"):
        notes.append("Sparse attention is taken as a window of index_topk tokens; the work of its indexer is left out.")
    if hf.root.get("vision_config") or hf.root.get("audio_config"):
        notes.append("Text decoder only: the vision or audio towers are not counted.")
    if hf.text.get("num_nextn_predict_layers"):
        notes.append("Multi-token-prediction layers are not counted.")
    return " ".join(notes)


def to_yaml(entry: Mapping[str, Any]) -> str:
    """Write an entry, one line a constant."""
    lines = []
    for key, value in entry.items():
        flow = isinstance(value, (Mapping, list))
        text = yaml.safe_dump(value, default_flow_style=flow, width=10**6, sort_keys=False, allow_unicode=True)
        lines.append(f"{key}: {text.removesuffix('...' + chr(10)).strip()}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> int:
    """Read a config, write the entry to stdout or a file. Returns the exit status."""
    parser = Parser("hybridfleet import-model", description=__doc__)
    parser.add_argument("config", type=Path, help="a Hugging Face config.json")
    parser.add_argument("--id", help="Hugging Face name of the model; default: what the file says, or its own name")
    parser.add_argument("--out", type=Path, help="file to write, such as my_conf/model/my_model.yaml; default: stdout")
    arguments = parser.parse_args(list(argv))
    config = _read_json(arguments.config)
    name = arguments.id or _name(config, arguments.config)
    try:
        entry = import_config(config, f"config.json of {name}")
    except InputError as error:
        raise InputError(error.key, error.value, error.accepted, str(arguments.config)) from None
    text = f"# {name}\n" + to_yaml({"hf_id": name, "aliases": [], **entry})
    if arguments.out is None:
        sys.stdout.write(text)
        return 0
    _write_new(arguments.out, text)
    print(f"wrote {arguments.out}; {_use(arguments.out)}", file=sys.stderr)
    return 0


def _use(path: Path) -> str:
    """How to run with an entry: the catalogue looks for it in the folder `model` of a folder of one's own."""
    if path.absolute().parent.name != "model":
        return f"move it into a folder named model, such as my_conf/model/{path.name}, for --config-dir my_conf"
    folder = shlex.quote(str(path.parent.parent))
    return f"try: hybridfleet run --config-dir {folder} fleet=single fleet.model={path.stem}"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError("config", path.name, f"JSON ({error.msg})", f"{path} line {error.lineno}") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("config", str(path), f"a readable JSON file ({reason})") from None


def _name(config: object, path: Path) -> str:
    stated = config.get("_name_or_path") if isinstance(config, Mapping) else None
    if isinstance(stated, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", stated):
        return stated
    return (path.parent.resolve().name if path.name == "config.json" else path.stem).replace("__", "/")


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError("--out", str(path), "a file that does not exist yet") from None
    except OSError as error:
        raise InputError("--out", str(path), f"a file that can be written ({error.strerror})") from None

"""Writes entries of the catalogue that a calibration gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scenarios.fitting import Fit
from sim.errors import InputError
from sim.hardware import catalogue

#: Coefficients as the catalogue states them: unit, and its factor to SI.
_UNITS = {"link_bytes_per_s": ("GB/s", 1e9), **dict.fromkeys(("link_latency_s",), ("us", 1e-6))}


def unit_of(name: str) -> tuple[str, float]:
    """Unit of a coefficient in the catalogue, and its factor to SI."""
    if name in _UNITS:
        return _UNITS[name]
    if name.endswith("_w"):
        return "W", 1.0
    return ("us", 1e-6) if name.endswith("_s") else ("share of peak", 1.0)


def write_entry(
    target: Path,
    name: str,
    fitted: Fit,
    sources: Sequence[str],
    search: Sequence[Path],
    group: str = "xpu",
    constants: Mapping[str, float] | None = None,
) -> None:
    """Write the entry: the one it started from, with the fitted coefficients and their source.

    Args:
        target: file to write.
        name: entry to start from; group: its folder.
        fitted: the fit.
        sources: names of what was measured.
        search: further folders of the catalogue.
        constants: values that were read off, in W and s.

    Raises:
        InputError: the file exists or cannot be written.
    """
    import yaml

    path = catalogue.load_entry(group, name, search).path
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for each in fitted.coefficients:
        if not each.determined:
            continue
        unit, factor = unit_of(each.name)
        section = content.setdefault("power" if unit == "W" else "timing", {}) if group == "xpu" else content
        section[each.name] = {
            "value": float(f"{each.after / factor:.4g}"),
            "unit": unit,
            "source": f"hybridfleet calibrate on {', '.join(sources)}; standard error {each.error:.1%}",
            "kind": "measured",
        }
    for key, value in (constants or {}).items():
        unit, source = "s" if key.endswith("_s") else "W", f"read off {', '.join(sources)}"
        content[key] = {"value": float(f"{value:.4g}"), "unit": unit, "source": source, "kind": "measured"}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(f"# {name}, calibrated\n" + _to_yaml(content))
    except FileExistsError:
        raise InputError("out", str(target), "a file that does not exist yet") from None
    except OSError as error:
        raise InputError("out", str(target), f"a file that can be written ({error.strerror})") from None


def _to_yaml(content: Mapping[str, Any], indent: str = "") -> str:
    """An entry, one line a constant."""
    import yaml

    lines = []
    for key, value in content.items():
        if isinstance(value, Mapping) and "value" not in value:
            lines.append(f"{indent}{key}:\n{_to_yaml(value, indent + '  ')}")
            continue
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
        lines.append(f"{indent}{key}: {text.removesuffix('...' + chr(10)).strip()}\n")
    return "".join(lines)

"""report.html: one self-contained page about a run, for the screen, the phone and the printer."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from analysis import definitions, report_accounts
from analysis.figures import captions, column_of
from analysis.table import CARBON, ENERGY, UNKNOWN, headings, number, percent, rows, task_name

Json = Mapping[str, Any]
KINDS = ("measured", "published", "derived", "assumed")


def write_report(path: Path, summary: Json, manifest: Json, figures: Mapping[str, Path]) -> None:
    """Write the report of a run.

    Args:
        path: file to write.
        summary, manifest: contents of summary.json and manifest.json.
        figures: SVG file of each figure by name, as `analysis.figures.write_figures` returns them; may be empty.
    """
    title = f"hybridfleet: {_title(manifest)}"
    sections = [
        _header(title, summary, manifest),
        _cards(summary["total"]),
        _missing(summary["total"]["incomplete"]),
        _section("Pools and fleet", _main_table(summary)),
        _section("SLO classes", _class_table(summary["by_slo_class"])),
        _section("Links", _link_table(summary["by_link"])) if summary["by_link"] else "",
        _section("Sites", report_accounts.sites(summary["by_site"])) if summary.get("by_site") else "",
        _section("Who caused it", report_accounts.attribution(summary["attribution"], summary["sci"])),
        _section("Economics", report_accounts.economics(summary)) if "economics" in summary else "",
        _section("Five resources", report_accounts.five(summary["resources"])),
        _section("Figures", _figures(figures)) if figures else "",
        _section("How the numbers are defined", _definitions(summary)),
        _section("What the numbers rest on", _provenance(manifest)),
        _section("Run it again", _reproduce(manifest)),
    ]
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>\n{(resources.files('analysis') / 'report.css').read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n{''.join(sections)}</body>\n</html>\n"
    )
    path.write_text(page, encoding="utf-8")


def command(manifest: Json) -> str | None:
    """The command line that repeats the run; None where it was not started from the command line."""
    if not manifest["config"]:
        return None
    return shlex.join(["hybridfleet", "run", *manifest["overrides"]])


def _title(manifest: Json) -> str:
    changes = " ".join(map(_without_folders, manifest["overrides"]))
    return str(manifest["config"].get("name") or changes or "the default scenario")


def _without_folders(override: str) -> str:
    """An override whose paths are cut down to file names: a title has to fit a phone."""
    key, sign, value = override.partition("=")
    return key + sign + re.sub(r"[^\s,:'\"{\[]*/", "", value)


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>\n"


def _header(title: str, summary: Json, manifest: Json) -> str:
    total, window = summary["total"], summary["total"]["window"]
    facts = [
        f"{total['requests']['arrived']:,} requests in {number(window['end_s'])} s of simulated time",
        f"seed {manifest['seed']}",
        f"version {manifest['version']}",
        f"finished {manifest['times']['finished']}",
    ]
    return f'<h1>{escape(title)}</h1>\n<p class="sub">{escape(" · ".join(facts))}</p>\n'


def _cards(total: Json) -> str:
    ttft, requests, carbon = total["ttft_s"], total["requests"], total["carbon_kg"]
    cards = [
        ("SLO attainment", percent(total["slo_attainment"]), "%",
         f"{requests['slo_met']:,} of {requests['counted']:,} counted requests"),
        ("Token-timeline QoE", number(total["token_qoe"]), "",
         f"mean, 0 to 1; TTFT p50 {number(ttft['p50'])} s, p99 {number(ttft['p99'])} s"),
        *_answers(total),
        ("Cost", _amount(total["usd_per_mtok"], total["cost_usd"]), "USD / Mtok",
         f"{_with_unit(total['cost_usd'], (('USD', 1.0),))} in all; Mtok: million output tokens"),
        ("Carbon", _amount(total["g_per_mtok"], carbon["total"]), "g CO₂e / Mtok",
         f"operational {_with_unit(carbon['operational'], CARBON)}, embodied {_with_unit(carbon['embodied'], CARBON)}"),
        ("Energy", _amount(total["j_per_token"], total["energy_kwh"]), "J / token",
         f"{_with_unit(total['energy_kwh'], ENERGY)} at the facility"),
    ]  # fmt: skip
    inner = "".join(
        f'<div class="card"><span>{escape(name)}</span>'
        f"<b>{escape(value)} <small>{'' if value == UNKNOWN else escape(unit)}</small></b>"
        f"<span>{escape(note)}</span></div>\n"
        for name, value, unit, note in cards
    )
    return f'<div class="cards">\n{inner}</div>\n'


def _answers(total: Json) -> list[tuple[str, str, str, str]]:
    """The card of correct answers, where they are known."""
    if total["answer_quality"] is None:
        return []
    return [("Answers correct", percent(total["answer_quality"]), "%", f"by {task_name(total['answer_task'])}")]


def _amount(ratio: float | None, amount: float | None) -> str:
    return UNKNOWN if amount is None else number(ratio)


def _with_unit(value: float | None, units: tuple[tuple[str, float], ...]) -> str:
    """A value in the largest unit in which it is at least one."""
    if value is None:
        return UNKNOWN
    unit, scale = [unit for unit in units if value >= unit[1]][-1:][0] if value >= units[0][1] else units[0]
    return f"{number(value / scale)} {unit}"


def _missing(incomplete: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in incomplete)
    return f'<div class="warn"><b>Not in the totals</b><ul>{items}</ul></div>\n' if items else ""


def _table(head: Iterable[str], body: Iterable[str], kind: str = "") -> str:
    return (
        f'<div class="scroll"><table class="{kind}">\n<thead><tr>{"".join(head)}</tr></thead>\n'
        f"<tbody>\n{''.join(body)}</tbody>\n</table></div>"
    )


def _main_table(summary: Json) -> str:
    names = headings(dict(summary))
    head = ["<th></th>", *(f"<th>{escape(name)}<small>{escape(text)}</small></th>" for name, text in names)]
    body, group = [], ""
    for row in rows(dict(summary)):
        if row.group != group:
            group = row.group
            body.append(f'<tr class="group"><td>{group}</td>{"<td></td>" * len(names)}</tr>\n')
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row.cells)
        body.append(f"<tr><td>{escape(row.label)}</td>{cells}</tr>\n")
    return _table(head, body)


def _class_table(classes: Json) -> str:
    head = ["class", "bounds TTFT / TPOT / E2E [s]", "requests", "SLO attainment [%]", "token QoE", "TTFT p99 [s]",
            "TPOT p99 [ms]", "USD / Mtok", "g CO2e / Mtok"]  # fmt: skip
    body = []
    for name, section in classes.items():
        slo, tpot = section["slo"], section["tpot_s"]["p99"]
        bounds = " / ".join("none" if slo[key] is None else f"{slo[key]:g}" for key in ("ttft_s", "tpot_s", "e2e_s"))
        cells = [
            name,
            bounds,
            f"{section['requests']['arrived']:,}",
            percent(section["slo_attainment"]),
            number(section["token_qoe"]),
            number(section["ttft_s"]["p99"]),
            number(None if tpot is None else 1e3 * tpot),
            _amount(section["usd_per_mtok"], section["cost_usd"]),
            _amount(section["g_per_mtok"], section["carbon_kg"]["total"]),
        ]
        body.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>\n")
    return _table([f"<th>{cell}</th>" for cell in head], body, "plain")


def _link_table(links: Json) -> str:
    head = ["link", "from", "to", "MB up", "MB down", "energy", "CO2e", "g CO2e/kWh", "out of service [s]"]
    body = []
    for name, link in links.items():
        cells = [
            name,
            link["source"],
            link["target"],
            number(link["bytes_up"] / 1e6),
            number(link["bytes_down"] / 1e6),
            _with_unit(link["energy_kwh"], ENERGY),
            _with_unit(link["carbon_kg"], CARBON),
            number(link["intensity_g_per_kwh"]),
            number(link["down_s"]),
        ]
        body.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>\n")
    return _table([f"<th>{cell}</th>" for cell in head], body, "plain")


def _figures(figures: Mapping[str, Path]) -> str:
    said = captions()
    parts = []
    for name, path in figures.items():
        caption = escape(said[name])
        parts.append(
            f'<figure><picture><source media="(max-width: 40rem)" srcset="{_data_uri(column_of(path))}">'
            f'<img alt="{caption}" src="{_data_uri(path)}"></picture><figcaption>{caption}</figcaption></figure>\n'
        )
    return "".join(parts)


def _data_uri(svg: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode("ascii")


def _definitions(summary: Json) -> str:
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>\n" for term, text in definitions.of(summary))
    return f"<dl>\n{items}</dl>"


def _provenance(manifest: Json) -> str:
    counts = manifest["provenance"]
    if not counts:
        return '<p class="note">The run did not record where its constants come from.</p>'
    kinds = [*KINDS, *(kind for kind in counts if kind not in KINDS)]
    body = [f"<tr><td>{escape(kind)}</td><td>{escape(str(counts.get(kind, 0)))}</td></tr>\n" for kind in kinds]
    note = (
        "How many of the constants behind this run are of each kind: measured on the hardware, published by a maker "
        "or in a paper, derived from either, or assumed. What is assumed deserves your doubt; "
        "<code>hybridfleet list</code> shows each value with its source."
    )
    return f"<p>{note}</p>\n" + _table(["<th>kind</th>", "<th>constants</th>"], body, "plain")


def _reproduce(manifest: Json) -> str:
    line = command(manifest)
    parts = [f"<pre>{escape(line)}</pre>" if line else "<p>This run was started from Python.</p>"]
    git = manifest["git"]
    facts = {
        "Seed": manifest["seed"],
        "Version": manifest["version"],
        "Commit": "not from a checkout"
        if git is None
        else git["commit"] + (" with changes" if git["modified"] else ""),
        "Python": manifest["python"],
        "Packages": ", ".join(f"{name} {version}" for name, version in manifest["packages"].items()),
        "SHA-256 of the configuration": manifest["config_sha256"],
    } | {f"SHA-256 of {path}": digest for path, digest in manifest["inputs_sha256"].items()}
    parts.append(
        "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd><code>{escape(str(v))}</code></dd>" for k, v in facts.items())
    )
    config = escape(json.dumps(manifest["config"], indent=2, ensure_ascii=False))
    parts.append(f"</dl>\n<details><summary>Configuration</summary><pre>{config}</pre></details>")
    return "\n".join(parts)

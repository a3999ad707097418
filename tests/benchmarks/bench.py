"""`make bench`: speed and memory of the simulator on this machine, beside SimPy's own speed and the peers.

Every case runs in fresh processes, `--runs` times; medians are printed and written to bench.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.cases import CASES, ROOT, TRACE, simpy_rate

#: requests per second of other simulators on the common trace, one core, one replica; measured once on a machine of
#: the same kind, versions as of 2026: BLIS in Go, the others in Python.
PEERS = {"BLIS": 2970.0, "Vidur": 239.0, "splitwise-sim": 172.0, "LLMServingSim": 1.9}


def measure(name: str, runs: int) -> dict[str, Any]:
    """Medians of a case over `runs` processes."""
    records = []
    for _ in range(runs):
        command = [sys.executable, "-m", "tests.benchmarks.cases", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        records.append(json.loads(done.stdout.splitlines()[-1]))
    numbers = ("wall_s", "requests_per_s", "peak_rss_mb", "simpy_timeouts_per_s")
    medians = {key: statistics.median(record[key] for record in records) for key in numbers}
    ratio = statistics.median(record["requests_per_s"] / record["simpy_timeouts_per_s"] for record in records)
    return {"name": name, "requests": records[0]["requests"], **medians, "per_simpy_timeout": ratio, "runs": runs}


def table(records: list[dict[str, Any]]) -> str:
    """The measured cases as a Markdown table."""
    rows = [
        "| case | requests | wall s | requests/s | peak MB | SimPy timeouts/s | requests per SimPy timeout |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    rows += [
        f"| {r['name']} | {r['requests']:,} | {r['wall_s']:.2f} | {r['requests_per_s']:,.0f} | {r['peak_rss_mb']:.0f} "
        f"| {r['simpy_timeouts_per_s']:,.0f} | {r['per_simpy_timeout']:.4f} |"
        for r in records
    ]
    return "\n".join(rows)


def ratios(records: list[dict[str, Any]]) -> str:
    """What the cases say about each other."""
    by_name = {record["name"]: record for record in records}
    lines = []
    if {"replicas_8", "million"} <= by_name.keys():
        per = {name: by_name[name]["wall_s"] / by_name[name]["requests"] for name in ("replicas_8", "million")}
        lines.append(f"time per request, 10^6 against 10^4 on 8 replicas: {per['million'] / per['replicas_8']:.2f}")
    for name, what in (
        ("outputs_x10", "outputs ten times as long, at a tenth of the rate"),
        ("replicas_100", "100 replicas at the same total load"),
        ("replicas_1000", "1,000 replicas at the same total load"),
    ):
        if {"replicas_8", name} <= by_name.keys():
            lines.append(f"{what}, against 8 replicas: {by_name[name]['wall_s'] / by_name['replicas_8']['wall_s']:.2f}")
    if "common_trace" in by_name:
        ours = by_name["common_trace"]["requests_per_s"]
        lines += [f"common trace, against {peer} ({rate:,.0f}/s): {ours / rate:.1f}" for peer, rate in PEERS.items()]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write bench.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="processes a case (default 5)")
    parser.add_argument("--out", type=Path, default=ROOT / "bench.json")
    shown = [name for name in CASES if not name.startswith(("cascade", "decide"))]  # the others by name alone
    parser.add_argument("cases", nargs="*", default=shown, help=f"cases to run (default {' '.join(shown)})")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.cases if name not in CASES]
    if unknown:
        parser.error(f"unknown case {unknown[0]}; there are: {', '.join(CASES)}")
    if not TRACE.exists():
        print(f"note: {TRACE.name} is not at hand; common_trace and whole_command use synthetic requests of its kind")
    records = []
    for name in arguments.cases:
        records.append(measure(name, arguments.runs))
        last = records[-1]
        print(f"{name}: {last['wall_s']:.2f} s, {last['requests_per_s']:,.0f} requests/s", file=sys.stderr, flush=True)
    print(table(records))
    print()
    print(ratios(records))
    print(f"SimPy, one process with a constant timeout (its best case): {simpy_rate(1, 300_000):,.0f} timeouts/s")
    arguments.out.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Records of measured runs, made up or simulated, for tests of `hybridfleet validate`."""

from __future__ import annotations

import csv
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scenarios.deployment import Requests, pool_of, serve
from scenarios.vllm_meta import graph_sizes
from tests.scenarios.command import Done, run

DATA = Path(os.environ.get("HYBRIDFLEET_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not (DATA / "measured").is_dir(), reason=f"no measurements in {DATA}")

ENGINE = {"max_num_seqs": 16, "max_num_batched_tokens": 512, "kv_blocks": 400, "max_model_len": 4096}
META: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B",
    "vllm_version": "0.19.0",
    "engine_kwargs": {
        "tensor_parallel_size": 1,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 512,
        "max_model_len": 4096,
        "dtype": "bfloat16",
    },
    "kv_cache": {"num_gpu_blocks": 400, "block_size": 16},
    "hardware": {"device_name": "NVIDIA GeForce RTX 4090"},
    "started_at": "2026-08-20T23:19:39.992496Z",
    "tick_seconds": 1.0,
}
CLOCK_S, EPOCH_S = 27536.5, 1787267980.0

Row = dict[str, Any]


@cache
def simulated_rows() -> list[Row]:
    """Rows of a requests.jsonl that a simulated RTX 4090 wrote; some are preempted, one has a single token."""
    rng = np.random.default_rng(7)
    n = 60
    requests = Requests(
        np.cumsum(rng.exponential(0.15, n)) - 0.1, rng.integers(1, 900, n), np.append(rng.integers(2, 400, n - 1), 1)
    )
    requests.arrival_s -= requests.arrival_s[0]
    engine = {**ENGINE, "async_scheduling": True, "prefix_caching": True, "padding": graph_sizes(16)}
    pool = pool_of({"model": "llama_3_1_8b", "xpu": "rtx_4090", "engine": engine}, {})
    result = serve(pool, requests)
    assert result.requests["preemptions"].sum() > 0
    column = {name: values.tolist() for name, values in result.requests.items()}
    return [
        {
            "request_id": f"bench-{i}",
            "input_toks": column["prompt_tokens"][i],
            "output_toks": column["output_tokens"][i],
            "arrival_time": EPOCH_S + at,
            "queued_ts": CLOCK_S + at,
            "scheduled_ts": CLOCK_S + at + column["queue_s"][i],
            "first_token_ts": CLOCK_S + at + column["ttft_s"][i],
            "last_token_ts": CLOCK_S + at + column["e2e_s"][i],
        }
        for i, at in enumerate(column["arrival_s"])
    ]


def write_folder(folder: Path, rows: list[Row], meta: object = META, series: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "meta.json").write_text(json.dumps(meta, indent=2))
    if series:
        (folder / "timeseries.csv").write_text(series)
    return folder


def agreement(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What the command prints with --json."""
    done = run(["validate", *arguments, "--json"], capsys)
    assert (done.status, done.err) == (0, "")
    section: dict[str, Any] = json.loads(done.out)
    return section


def write_rows(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def one_line(done: Done, *fragments: str) -> None:
    """The command refused its input: status 2, nothing on stdout, one line that names the fragments."""
    assert done.status == 2
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert done.err.startswith("hybridfleet: error: ")
    for fragment in fragments:
        assert fragment in done.err


AGGREGATE = {
    "experiment": "a run",
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "hardware": "H100",
    "precision": "FP16",
    "tp": 1,
    "max_num_batched_tokens": 2048,
    "stage_index": -1,
    "e2e_mean": 700.0,
    "itl_mean": 7.0,
    "ttft_mean": 14.0,
    "question_len": 400,
    "system_prompt_len": 100,
    "output_len": 100,
    "n_sys_prompts": 3,
    "users_per_prompt": 2,
    "stages": "2rps x50s;5rps x50s",
}
ENERGY_ROW = {"model": "llama3.1-8b", "GPU": "NVIDIA H100 80GB HBM3", "TP": 1, "bs": 40.4, "in": 100, "out": 60.2}
ENERGY_COLUMNS = {"batch": "bs", "prompt": "in", "output": "out"}

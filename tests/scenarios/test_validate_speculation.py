"""Measured runs with speculative decoding: what `meta.json` says of it, and what it must say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scenarios.deployment import Requests, pool_of, serve
from scenarios.vllm_meta import graph_sizes, read_meta
from sim.hardware.speculation import acceptance_of, tokens_a_step
from tests.scenarios.command import run
from tests.scenarios.records import CLOCK_S, ENGINE, EPOCH_S, META, Row, agreement, one_line, write_folder

NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}
DRAFT = {"model": "meta-llama/Llama-3.2-1B", "num_speculative_tokens": 2}
RATE = 0.6


def meta(config: object, **more: object) -> dict[str, Any]:
    return {**META, "engine_kwargs": {**META["engine_kwargs"], "speculative_config": config}, **more}


def rows(**pool: Any) -> list[Row]:
    """A requests.jsonl of a simulated pool that drafts."""
    rng = np.random.default_rng(11)
    requests = Requests(np.cumsum(rng.exponential(0.2, 30)), rng.integers(1, 600, 30), rng.integers(2, 200, 30))
    requests.arrival_s -= requests.arrival_s[0]
    engine = {
        **ENGINE,
        "prefix_caching": True,
        "padding": graph_sizes(16),
        "acceptance_rate": RATE,
        **pool.pop("engine"),
    }
    result = serve(pool_of({"model": "llama_3_1_8b", "xpu": "rtx_4090", "engine": engine, **pool}, {}), requests)
    column = {name: values.tolist() for name, values in result.requests.items()}
    return [
        {
            "input_toks": column["prompt_tokens"][i],
            "output_toks": column["output_tokens"][i],
            "arrival_time": EPOCH_S + at,
            "queued_ts": CLOCK_S + at,
            "first_token_ts": CLOCK_S + at + column["ttft_s"][i],
            "last_token_ts": CLOCK_S + at + column["e2e_s"][i],
        }
        for i, at in enumerate(column["arrival_s"])
    ]


@pytest.mark.parametrize(
    ("config", "pool"),
    [
        (NGRAM, {"engine": {"speculative_tokens": 3}}),
        (DRAFT, {"engine": {"speculative_tokens": 2, "speculative_method": "draft_model"}, "draft": "llama_3_2_1b"}),
    ],
    ids=["ngram", "draft_model"],
)
def test_a_run_that_drafts_is_replayed_as_it_was(
    config: dict[str, Any], pool: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    length = tokens_a_step(RATE, config["num_speculative_tokens"])
    measured = rows(**pool)
    folder = write_folder(tmp_path / "run", measured, meta(config, spec_decode_acceptance_length=length))
    found = agreement(capsys, f"measured={folder}")
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        assert abs(found[metric]["mean"]["error"]) < 1e-6
    # as JSON, as the command line has it, and with the rate from the user
    folder = write_folder(tmp_path / "other", measured, meta(json.dumps(config)))
    assert agreement(capsys, f"measured={folder}", f"engine.acceptance_rate={RATE}") == found
    if "draft" in pool:
        unknown = {**config, "model": "acme/none-1b"}
        folder = write_folder(tmp_path / "unknown", measured, meta(unknown, spec_decode_acceptance_length=length))
        assert agreement(capsys, f"measured={folder}", "draft=llama_3_2_1b") == found
    # drafting saves time; with nothing drafted there is no model that drafts either
    slow = agreement(capsys, f"measured={folder}", "engine.speculative_tokens=0")
    assert slow["tpot_s"]["mean"]["simulated"] > 1.1 * found["tpot_s"]["mean"]["simulated"]


@pytest.mark.parametrize("method", ["mtp", "deepseek_mtp", "qwen3_next_mtp"])
def test_every_model_with_a_layer_that_drafts_is_mtp(method: str) -> None:
    config = {"method": method, "num_speculative_tokens": 1}
    engine = read_meta(meta(config, spec_decode_acceptance_rate=80.0), "meta.json").pool["engine"]
    assert (engine["speculative_method"], engine["speculative_tokens"]) == ("mtp", 1)
    assert engine["acceptance_rate"] == pytest.approx(0.8)
    assert engine["async_scheduling"] is True
    assert read_meta(meta(NGRAM), "meta.json").pool["engine"]["async_scheduling"] is False


@pytest.mark.parametrize("drafts", [1, 3, 8])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.75, 1.0])
def test_an_acceptance_length_gives_its_rate_back(rate: float, drafts: int) -> None:
    assert acceptance_of(tokens_a_step(rate, drafts), drafts) == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize(
    ("config", "more", "named"),
    [
        (NGRAM, {}, ("engine.acceptance_rate=None", "a probability in [0, 1]", "meta.json")),
        (
            {"method": "eagle3", "num_speculative_tokens": 2},
            {},
            ("speculative_config.method='eagle3'", "ngram | draft"),
        ),
        ({"num_speculative_tokens": 2}, {}, ("speculative_config.method=None",)),
        ({"method": "ngram"}, {}, ("speculative_config.num_speculative_tokens=None",)),
        ({"method": "draft_model", "num_speculative_tokens": 2}, {}, ("speculative_config.model=None",)),
        ("SpeculativeConfig(method='ngram')", {}, ("speculative_config=", "JSON")),
        ([3], {}, ("speculative_config=[3]", "a mapping")),
        (NGRAM, {"spec_decode_acceptance_length": 4.5}, ("spec_decode_acceptance_length=4.5", "1 to 4 tokens a step")),
        (NGRAM, {"spec_decode_acceptance_rate": 120}, ("spec_decode_acceptance_rate=120", "0 to 100")),
        ({**DRAFT, "model": "acme/none-1b"}, {"spec_decode_acceptance_rate": 50}, ("draft", "acme/none-1b")),
    ],
)
def test_what_cannot_be_replayed_is_one_line(
    config: object, more: dict[str, Any], named: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = [
        {
            "input_toks": 100, "output_toks": 5, "arrival_time": EPOCH_S, "queued_ts": CLOCK_S,
            "first_token_ts": CLOCK_S + 0.1, "last_token_ts": CLOCK_S + 0.2,
        }
    ]  # fmt: skip
    folder = write_folder(tmp_path / "run", measured, meta(config, **more))
    one_line(run(["validate", f"measured={folder}"], capsys), *named)

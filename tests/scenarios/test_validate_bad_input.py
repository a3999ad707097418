"""Bad records of measured runs: one clear line that names file, line and value, exit status 2, nothing written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.scenarios.command import run
from tests.scenarios.records import (
    AGGREGATE,
    CLOCK_S,
    EPOCH_S,
    META,
    Row,
    one_line,
    write_folder,
    write_rows,
)

Change = Callable[[list[Row]], object]


def changed(at: int, **values: object) -> Change:
    """Set values of one row; None takes a key out."""

    def change(rows: list[Row]) -> None:
        rows[at] = {key: value for key, value in {**rows[at], **values}.items() if value is not None}

    return change


#: id -> (change of the rows, keys of the meta.json to set (None takes one out), further arguments, what must be named)
FOLDERS: dict[str, tuple[Change, Mapping[str, object], list[str], list[str]]] = {
    "no output": (changed(3, output_toks=0), {}, [], ["requests.jsonl line 4", "output_toks=0"]),
    "no prompt": (changed(3, input_toks=0), {}, [], ["line 4", "input_toks=0"]),
    "half a token": (changed(3, output_toks=2.5), {}, [], ["line 4", "2.5"]),
    "text for tokens": (changed(0, output_toks="many"), {}, [], ["line 1", "'many'"]),
    "missing field": (changed(2, last_token_ts=None), {}, [], ["line 3", "last_token_ts"]),
    "missing length": (changed(2, input_toks=None), {}, [], ["line 3", "input_toks"]),
    "not a number": (changed(2, queued_ts=float("nan")), {}, [], ["line 3", "queued_ts=nan"]),
    "queued on the epoch clock": (changed(5, queued_ts=EPOCH_S), {}, [], ["line 6", "one clock"]),
    "tokens on the epoch clock": (
        changed(5, first_token_ts=EPOCH_S, last_token_ts=EPOCH_S + 1), {}, [], ["line 6", "one clock"],
    ),
    "a row of another clock": (
        changed(5, queued_ts=EPOCH_S, scheduled_ts=EPOCH_S, first_token_ts=EPOCH_S + 1, last_token_ts=EPOCH_S + 2),
        {}, [], ["line 6", "one clock"],
    ),
    "last before first": (changed(5, last_token_ts=CLOCK_S - 5), {}, [], ["line 6", "last_token_ts"]),
    "no requests": (lambda rows: rows.clear(), {}, [], ["requests.jsonl", "at least one request"]),
    "unknown model": (lambda rows: None, {"model": "acme/unknown-9b"}, [], ["meta.json", "acme/unknown-9b"]),
    "no model": (lambda rows: None, {"model": None}, [], ["meta.json", "model"]),
    "unknown device": (lambda rows: None, {"hardware": {"device_name": "ACME 1"}}, [], ["ACME 1", "xpu=ID"]),
    "data parallel": (
        lambda rows: None, {"engine_kwargs": {"data_parallel_size": 2}, "model": "Qwen/Qwen3-30B-A3B"},
        ["xpu=h200_sxm"], ["dp=2", "expert_parallel"],
    ),
    "ranks without end": (
        lambda rows: None, {"engine_kwargs": {"data_parallel_size": 0}}, [], ["dp=0", "at least 1"],
    ),
    "no stages": (lambda rows: None, {"engine_kwargs": {"pipeline_parallel_size": 0}}, [], ["pp=0", "at least 1"]),
    "unknown quantization": (
        lambda rows: None, {"engine_kwargs": {"quantization": "magic"}}, [], ["magic", "precision=FORMAT"],
    ),
    "bad number of sequences": (
        lambda rows: None, {"engine_kwargs": {"max_num_seqs": -1}}, [], ["meta.json", "max_num_seqs=-1"],
    ),
    "meta of another kind": (lambda rows: None, {"engine_kwargs": [1]}, [], ["meta.json", "engine_kwargs"]),
    "too long a request": (changed(4, input_toks=10**6), {}, [], ["1000", "meta.json"]),
    "unknown xpu": (lambda rows: None, {}, ["xpu=rtx_4091"], ["xpu='rtx_4091'", "rtx_4090"]),
    "unknown engine setting": (lambda rows: None, {}, ["engine.sequences=4"], ["engine.sequences=4", "max_num_seqs"]),
    "bad engine setting": (lambda rows: None, {}, ["engine.max_num_seqs=many"], ["engine.max_num_seqs='many'"]),
    "more blocks than fit": (lambda rows: None, {}, ["engine.kv_blocks=99999999"], ["engine.kv_blocks=99999999"]),
    "precision that the chip lacks": (lambda rows: None, {}, ["precision=fp4", "xpu=h200_sxm", "tp=3"], ["tp"]),
    "unknown key": (lambda rows: None, {}, ["xpus=l4"], ["xpus='l4'", "did you mean xpu"]),
    "twice": (lambda rows: None, {}, ["xpu=l4", "xpu=t4"], ["xpu='t4'", "one value"]),
    "no value": (lambda rows: None, {}, ["xpu="], ["xpu=", "KEY=VALUE"]),
    "two modes": (lambda rows: None, {}, ["energy=a.csv"], ["measured=", "energy="]),
    "out exists": (lambda rows: None, {}, ["out=."], ["out='.'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_a_bad_folder_is_refused_in_one_line(
    case: str, tmp_path: Path, simulated: list[Row], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change, settings, arguments, fragments = FOLDERS[case]
    rows = [dict(row) for row in simulated]
    change(rows)
    meta = {key: value for key, value in {**META, **settings}.items() if value is not None}
    folder = write_folder(tmp_path / "run", rows, meta)
    one_line(run(["validate", f"measured={folder}", *arguments], capsys), *fragments)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


FILES: dict[str, tuple[str, str, list[str], list[str]]] = {
    "json that does not parse": ("measured", '{"input_lens": [1,\n}', [], ["line 2", "JSON"]),
    "json without detail": ("measured", '{"input_lens": [1]}', [], ["output_lens", "--save-detailed"]),
    "json with lists of two lengths": (
        "measured",
        '{"input_lens": [1, 2], "output_lens": [1], "ttfts": [1, 1], "itls": [[], []], "start_times": [0, 1]}',
        [],
        ["output_lens=1", "(2)"],
    ),
    "json of failures": (
        "measured",
        '{"input_lens": [1], "output_lens": [0], "ttfts": [0], "itls": [[]], "start_times": [0], "errors": ["x"]}',
        [],
        ["errors", "did not fail"],
    ),
    "json with an empty answer": (
        "measured",
        '{"input_lens": [1], "output_lens": [0], "ttfts": [0], "itls": [[]], "start_times": [0]}',
        [],
        ["output_lens[0]=0"],
    ),
    "json without an xpu": (
        "measured",
        '{"model_id": "llama3.1-8b", "input_lens": [1], "output_lens": [1], '
        '"ttfts": [0], "itls": [[]], "start_times": [0]}',
        [],
        ["xpu=ID"],
    ),
    "csv without the columns": ("measured.csv", "a,b\n1,2\n", [], ["columns.arrival"]),
    "csv with a column that is not there": (
        "measured.csv",
        "a,b\n1,2\n",
        ["columns.prompt=c"],
        ["columns.prompt='c'", "a, b"],
    ),
    "csv with a field that is not there": (
        "measured.csv",
        "a,b\n1,2\n",
        ["columns.size=a"],
        ["columns.size", "prompt"],
    ),
    "csv with a short row": ("measured.csv", "arrival_s,prompt_tokens\n1\n", [], ["line 2", "2 cells"]),
    "csv with a bad unit": ("measured.csv", "a,b\n1,2\n", ["time_unit=h"], ["time_unit='h'"]),
    "another kind of file": ("measured.txt", "hello", [], [".json or a .csv"]),
    "aggregates without columns": ("aggregates.csv", "model,tp\nx,1\n", [], ["columns.experiment"]),
    "aggregates of nothing": ("aggregates.csv", "model,tp\n", [], ["at least one row"]),
    "aggregates with an arrival law that is not there": (
        "aggregates.csv",
        "model\nx\n",
        ["arrivals=bursts"],
        ["arrivals='bursts'"],
    ),
    "energy without a measure": (
        "energy.csv",
        "model,GPU,batch,output\nllama3.1-8b,h100_sxm,4,10\n",
        [],
        ["line 2", "joules_per_request"],
    ),
    "energy of an unknown model alone": (
        "energy.csv",
        "model,GPU,batch,output,joules_per_token\nacme/9b,h100_sxm,4,10,1\n",
        [],
        ["acme/9b"],
    ),
    "energy that is negative": (
        "energy.csv",
        "model,GPU,batch,output,joules_per_token\nllama3.1-8b,h100_sxm,4,10,-1\n",
        [],
        ["line 2", "'-1'"],
    ),
    "energy without a batch": ("energy.csv", "model,GPU,output\nllama3.1-8b,h100_sxm,10\n", [], ["columns.batch"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_refused_in_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind, content, arguments, fragments = FILES[case]
    mode, _, suffix = kind.partition(".")
    path = tmp_path / f"file.{suffix or 'json'}"
    path.write_text(content)
    one_line(run(["validate", f"{mode}={path}", *arguments, "--json"], capsys), *fragments)


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"model": "acme/unknown-9b"}, ["line 2", "acme/unknown-9b"]),
        ({"hardware": "ACME 1"}, ["line 2", "hardware='ACME 1'"]),
        ({"stages": "fast"}, ["line 2", "stages='fast'"]),
        ({"stages": "0rps x10s"}, ["line 2", "0rps"]),
        ({"stage_index": 2}, ["line 2", "stage_index=2"]),
        ({"e2e_mean": 7e5}, ["line 2", "output_len"]),
        ({"itl_mean": 0}, ["line 2", "itl_mean"]),
        ({"precision": "FP7"}, ["line 2", "fp7"]),
        ({"tp": "two"}, ["line 2", "tp='two'"]),
    ],
)
def test_bad_aggregates_are_refused_in_one_line(
    change: Row, fragments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_rows(tmp_path / "a.csv", [{**AGGREGATE, **change}])
    one_line(run(["validate", f"aggregates={path}"], capsys), *fragments)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ([], ["measured=", "aggregates=", "energy="]),
        (["measured=nowhere"], ["measured='nowhere'", "exists"]),
        (["aggregates=nowhere.csv"], ["nowhere.csv", "readable"]),
        (["document=x.md"], ["data=DIR"]),
        (["document=x.md", "data=nowhere"], ["data='nowhere'"]),
        (["--fast"], ["--fast"]),
    ],
)
def test_a_bad_command_line_is_refused_in_one_line(
    arguments: list[str], fragments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    one_line(run(["validate", *arguments], capsys), *fragments)


def test_malformed_json_is_named_by_its_line(
    tmp_path: Path, simulated: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "run", simulated)
    with (folder / "requests.jsonl").open("a") as file:
        file.write('{"input_toks": 3,\n')
    one_line(run(["validate", f"measured={folder}"], capsys), f"requests.jsonl line {len(simulated) + 1}", "JSON")
    write_folder(folder, simulated)
    (folder / "meta.json").write_text('{\n"model": \n}')
    one_line(run(["validate", f"measured={folder}"], capsys), "meta.json line 3", "JSON")
    (folder / "meta.json").unlink()
    one_line(run(["validate", f"measured={folder}"], capsys), "meta.json is missing")

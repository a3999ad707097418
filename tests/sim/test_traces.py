"""Trace files: formats, windows, scaling, order, failures, streaming, and errors with file and line."""

from __future__ import annotations

import gzip
import json
import math
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.errors import InputError
from sim.qoe import SLOClass
from sim.rng import Streams
from sim.workload.base import RequestBatch
from sim.workload.readers import BLOCK
from sim.workload.traces import TraceWorkload

DATA = Path(os.environ.get("HYBRIDFLEET_DATA", Path(__file__).parents[3] / "shared" / "data"))
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
PLAIN = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
CLASSES = (SLOClass("chat"), SLOClass("batch"))


def write(folder: Path, text: str | bytes, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def requests(workload: TraceWorkload, seed: int = 0) -> RequestBatch:
    """All batches as one."""
    columns = zip(
        *((b.arrival_s, b.prompt_tokens, b.output_tokens, b.slo_class) for b in workload.batches(Streams(seed)))
    )
    return RequestBatch(*(np.concatenate(column) for column in columns))


def check(workload: TraceWorkload, arrival: list[float], prompt: list[int], output: list[int]) -> None:
    got = requests(workload)
    np.testing.assert_allclose(got.arrival_s, arrival, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(got.prompt_tokens, prompt)
    np.testing.assert_array_equal(got.output_tokens, output)
    assert got.prompt_tokens.dtype == got.output_tokens.dtype == got.slo_class.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "format"),
    [
        (AZURE + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9305900,396,109\n", "azure"),
        (AZURE + "2024-05-12 23:59:58+00:00,374,44\r\n2024-05-13 00:00:02.250000+00:00,396,109", "azure"),
        ("\ufeff" + AZURE.replace(",", " ,") + "2023-11-16 18:15:46,374,44\n2023-11-16 18:15:50.25,396,109\n\n",
         "azure"),
        (BURST + "5,ChatGPT,374,44,418,API log\n9.25,GPT-4,396,109,505,Conversation log\n", "burstgpt"),
        (
            "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
            "19440110.0,1722ac82,43,GPT-4,374,44,418,Conversation log\n19440114.25,,2,ChatGPT,396,109,505,API log\n",
            "burstgpt",
        ),
        (PLAIN + "0.0,374,44\n4.25,396.0,109\n", "csv"),
        ('{"timestamp": 27, "input_length": 374, "output_length": 44, "hash_ids": [0, 1]}\n'
         '{"timestamp": 4277, "input_length": 396, "output_length": 109, "hash_ids": []}\n', "mooncake"),
        ('{"request_id": "b", "input_toks": 374, "output_toks": 44, "arrival_time": 1700000000.5}\n\n'
         '{"request_id": "c", "input_toks": 396, "output_toks": 109, "arrival_time": 1700000004.75}\n', "vllm"),
        ('{"timestamp": 1.5, "prompt_len": 374, "output_len": 44}\n'
         '{"timestamp": 5.75, "prompt_len": 396, "output_len": 109}', "vllm"),
    ],
)  # fmt: skip
def test_formats_are_told_by_their_columns(tmp_path: Path, text: str, format: str) -> None:
    workload = TraceWorkload(write(tmp_path, text))
    assert workload.file.format == format
    check(workload, [0.0, 4.25], [374, 396], [44, 109])


@pytest.mark.parametrize(
    ("unit", "times"),
    [
        ("s", ("100", "104.25")),
        ("ms", ("100", "4350")),
        ("us", ("5", "4250005")),
        ("ns", ("7", "4250000007")),
        ("datetime", ("2024-01-01T00:00:00Z", "2024-01-01T02:00:04.25+02:00")),
    ],
)
def test_any_csv_by_column_mapping(tmp_path: Path, unit: str, times: tuple[str, str]) -> None:
    text = f'note,out,in,when\n"a, b",44,374,{times[0]}\n"two\nlines",109,396,{times[1]}\n'
    columns = {"arrival": "when", "prompt": "in", "output": "out"}
    check(TraceWorkload(write(tmp_path, text), columns=columns, time_unit=unit), [0.0, 4.25], [374, 396], [44, 109])


def test_some_columns_of_a_known_format_can_be_replaced(tmp_path: Path) -> None:
    lines = [{"input_toks": 5, "output_toks": 6, "arrival_time": 1e9, "queued_ts": t} for t in (3.0, 3.5)]
    path = write(tmp_path, "\n".join(map(json.dumps, lines)), "a.jsonl")
    check(TraceWorkload(path, columns={"arrival": "queued_ts", "prompt": None}), [0.0, 0.5], [5, 5], [6, 6])  # type: ignore[dict-item]


def test_packed_files_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress((PLAIN + "0,1,2\n1,3,4\n").encode()), "trace.csv.gz")
    workload = TraceWorkload(path)
    check(workload, [0.0, 1.0], [1, 3], [2, 4])
    assert workload.expected_requests() is None


TEN = PLAIN + "".join(f"{100 + i},{i + 1},{i + 11}\n" for i in range(10))


def test_window_limit_and_rate_scale(tmp_path: Path) -> None:
    path = write(tmp_path, TEN)
    check(TraceWorkload(path, start_s=2.5, duration_s=4.5), [0.5, 1.5, 2.5, 3.5], [4, 5, 6, 7], [14, 15, 16, 17])
    check(
        TraceWorkload(path, start_s=2.5, duration_s=4.5, rate_scale=2.0, limit=3),
        [0.25, 0.75, 1.25],
        [4, 5, 6],
        [14, 15, 16],
    )
    check(TraceWorkload(path, limit=2), [0.0, 1.0], [1, 2], [11, 12])
    check(TraceWorkload(path, duration_s=1.0), [0.0], [1], [11])


def test_out_of_order_rows_are_refused_or_sorted(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN + "5,1,1\n7,2,2\n6,3,3\n4,4,4\n6,5,5\n")
    with pytest.raises(
        InputError, match=r"trace\.csv line 4: arrived_at='1 s after the first row'.*workload\.sort=true"
    ):
        requests(TraceWorkload(path))
    check(TraceWorkload(path, sort=True), [0, 1, 2, 2, 3], [4, 1, 3, 5, 2], [4, 1, 3, 5, 2])


def test_disorder_is_seen_across_blocks(tmp_path: Path) -> None:
    rows = [f"{i},1,1\n" for i in range(BLOCK)]
    path = write(tmp_path, PLAIN + "".join(rows) + f"{BLOCK - 2},1,1\n")
    with pytest.raises(InputError, match=rf"line {BLOCK + 2}: "):
        requests(TraceWorkload(path))


def test_failed_requests_are_dropped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path, BURST + "5,m,9,0,9,x\n6,m,10,2,12,x\n7,m,11,0,11,x\n8,m,12,3,15,x\n")
    workload = TraceWorkload(path)
    for _ in range(2):
        check(workload, [1.0, 3.0], [10, 12], [2, 3])
        assert workload.dropped == 2
    with pytest.raises(InputError, match=r"line 2: Response tokens=0"):
        requests(TraceWorkload(path, drop_failed=False))
    plain = write(tmp_path, PLAIN + "0,5,5\n1,5,0\n", "plain.csv")
    with pytest.raises(InputError, match=r"line 3: num_decode_tokens=0.*drop_failed=true"):
        requests(TraceWorkload(plain))
    check(TraceWorkload(plain, drop_failed=True), [0.0], [5], [5])


def test_slo_classes_by_number_and_by_mix(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN + "".join(f"{i},1,1\n" for i in range(20_000)))
    assert set(requests(TraceWorkload(path, slo_classes=CLASSES)).slo_class) == {0}
    fixed = TraceWorkload(path, slo_classes=CLASSES, slo_class=1, slo_mix=(0.5, 0.5))
    assert set(requests(fixed).slo_class) == {1}
    mixed = TraceWorkload(path, slo_classes=CLASSES, slo_mix=(3, 1))
    assert requests(mixed).slo_class.mean() == pytest.approx(0.25, abs=0.015)
    np.testing.assert_array_equal(requests(mixed, 4).slo_class, requests(mixed, 4).slo_class)


def test_expected_requests_is_about_right(tmp_path: Path) -> None:
    path = write(tmp_path, PLAIN + "".join(f"{i},100,100\n" for i in range(50_000)))
    assert TraceWorkload(path).expected_requests() == pytest.approx(50_000, rel=0.05)
    assert TraceWorkload(path, limit=10).expected_requests() == 10
    assert TraceWorkload(path, duration_s=5).expected_requests() is None


def test_a_large_trace_streams(tmp_path: Path) -> None:
    n = 16 * BLOCK
    path = write(tmp_path, PLAIN + "".join(f"{i},100,100\n" for i in range(n)) + "oops\n")
    tracemalloc.start()
    count = 0
    try:
        with pytest.raises(InputError, match=rf"line {n + 2}: row='oops'"):
            for batch in TraceWorkload(path).batches(Streams(0)):
                count += len(batch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == n
    # One block of Python objects; the rows of the whole file as objects would be 40 MB.
    assert peak < 6e6


@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        (AZURE + "2023-11-16 18:15:46.68,374,44\nyesterday,1,1\n", 3, "TIMESTAMP='yesterday'"),
        (AZURE + "never,1,1\n", 2, "TIMESTAMP='never'"),
        (AZURE + "2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:47+00:00,1,1\n", 3, "TIMESTAMP="),
        (AZURE + "2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:47.68,374\n", 3, "row='2023-11-16 18:15:47.68,374'"),
        (AZURE + "2023-11-16 18:15:46.68,374,44,7\n", 2, "row="),
        (PLAIN + "0,1,1\n1,-5,1\n", 3, "num_prefill_tokens='-5'"),
        (PLAIN + "0,0,1\n", 2, "num_prefill_tokens='0'"),
        (PLAIN + "0,1,-1\n", 2, "num_decode_tokens='-1'"),
        (PLAIN + "0,1,\n", 2, "num_decode_tokens=''"),
        (PLAIN + "0,1,2.5\n", 2, "num_decode_tokens='2.5'"),
        (PLAIN + "0,1,nan\n", 2, "num_decode_tokens='nan'"),
        (PLAIN + "0,99999999999999999999,1\n", 2, "num_prefill_tokens='99999999999999999999'"),
        (PLAIN + "0,1,1\nnan,1,1\n", 3, "arrived_at='nan'"),
        (PLAIN + "0,1,1\n\n\ninf,1,1\n", 5, "arrived_at='inf'"),
        (PLAIN + "soon,1,1\n", 2, "arrived_at='soon'"),
        (PLAIN + '0,1,1\n"' + "x" * 200_000, 3, "row='field larger"),
        ("when,in,out\n0,1,1\n", 1, "columns='when, in, out'"),
        (PLAIN.encode() + b"0,1,1\n1,\xff,1\n", 3, r"row=b'\xff,1"),
        (PLAIN.encode("utf-16"), 1, "row="),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n{"timestamp": 1,\n', 2, "row="),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n{"timestamp": 1, "input_length": 3}\n', 2, "row="),
        ('{"timestamp": 0, "input_length": 1, "output_length": 1}\n[1, 2]\n', 2, "row='[1, 2]'"),
        ('{"timestamp": 0, "input_length": 1, "output_length": true}\n', 1, "output_length=True"),
        ('{"timestamp": 0, "input_length": null, "output_length": 1}\n', 1, "input_length=None"),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 1}\n', 1, "timestamp=nan"),
        ('{"timestamp": 0, "input_length": 1.5, "output_length": 1}\n', 1, "input_length=1.5"),
        ('{"timestamp": true, "input_length": 1, "output_length": 1}\n', 1, "timestamp=True"),
        ("{not json\n", 1, "row='{not json'"),
    ],
)  # fmt: skip
def test_malformed_rows_are_named_by_line(tmp_path: Path, text: str | bytes, line: int, shown: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        requests(TraceWorkload(path))
    assert caught.value.where == f"{path} line {line}"
    assert shown in str(caught.value)
    assert "\n" not in str(caught.value)


def test_line_numbers_count_the_lines_of_quoted_fields(tmp_path: Path) -> None:
    text = 'text,arrived_at,num_prefill_tokens,num_decode_tokens\n"a\nb\nc",0,1,1\nd,1,x,1\n'
    with pytest.raises(InputError, match="line 5: num_prefill_tokens='x'"):
        requests(TraceWorkload(write(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "name"),
    [("", "a.csv"), ("\n", "a.csv"), (AZURE, "a.csv"), (gzip.compress(b"", mtime=0), "a.csv.gz"),
     (b"no gzip", "a.csv.gz"),
     (gzip.compress((PLAIN + "0,1,1\n" * 5000).encode(), mtime=0)[:-12], "a.csv.gz")],
)  # fmt: skip
def test_empty_and_damaged_files_are_refused(tmp_path: Path, text: str | bytes, name: str) -> None:
    path = write(tmp_path, text, name)
    with pytest.raises(InputError) as caught:
        requests(TraceWorkload(path))
    assert (caught.value.key, caught.value.value) == ("workload.path", str(path))


def test_empty_windows_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, TEN)
    with pytest.raises(InputError, match=r"workload\.start_s=9.5.*read up to 9 s"):
        requests(TraceWorkload(path, start_s=9.5))
    failed = write(tmp_path, BURST + "5,m,9,0,9,x\n", "failed.csv")
    with pytest.raises(InputError, match="1 failed requests left out"):
        requests(TraceWorkload(failed))


@pytest.mark.parametrize(
    ("argument", "value", "key"),
    [
        ("path", None, "workload.path"),
        ("path", "", "workload.path"),
        ("path", 3, "workload.path"),
        ("path", "no-such-file.csv", "workload.path"),
        ("path", ".", "workload.path"),
        ("format", "parquet", "workload.format"),
        ("format", None, "workload.format"),
        ("columns", ["a"], "workload.columns"),
        ("columns", {"arrivals": "t"}, "workload.columns.arrivals"),
        ("columns", {"arrival": 3}, "workload.columns.arrival"),
        ("columns", {"arrival": "missing"}, "columns"),
        ("time_unit", "hours", "workload.time_unit"),
        ("rate_scale", 0.0, "workload.rate_scale"),
        ("rate_scale", -1.0, "workload.rate_scale"),
        ("rate_scale", math.nan, "workload.rate_scale"),
        ("rate_scale", "2", "workload.rate_scale"),
        ("start_s", -1.0, "workload.start_s"),
        ("start_s", math.inf, "workload.start_s"),
        ("duration_s", 0.0, "workload.duration_s"),
        ("duration_s", math.nan, "workload.duration_s"),
        ("limit", 0, "workload.limit"),
        ("limit", 1.5, "workload.limit"),
        ("limit", True, "workload.limit"),
        ("slo_classes", (), "slo.classes"),
        ("slo_class", 1, "workload.slo_class"),
        ("slo_class", -1, "workload.slo_class"),
        ("slo_mix", (1, 2), "workload.slo_mix"),
        ("slo_mix", (0,), "workload.slo_mix"),
        ("slo_mix", (math.nan,), "workload.slo_mix"),
        ("sort", "yes", "workload.sort"),
        ("drop_failed", 1, "workload.drop_failed"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, argument: str, value: Any, key: str) -> None:
    arguments: dict[str, Any] = {"path": write(tmp_path, TEN), argument: value}
    with pytest.raises(InputError) as caught:
        TraceWorkload(**arguments)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "format", "count", "rate", "prompt", "output"),
    [
        ("traces/azure2023/AzureLLMInferenceTrace_conv.csv", "azure", 19_366, 5.53, 1155, 211),
        ("traces/azure2023/AzureLLMInferenceTrace_code.csv", "azure", 8_819, 2.57, 2048, 28),
        ("traces/mooncake_fast25/conversation_trace.jsonl", "mooncake", 12_031, 3.40, 12_035, 343),
        ("traces/mooncake_fast25/synthetic_trace.jsonl", "mooncake", 3_993, 3.91, 15_325, 149),
        ("measured/vllm/rtx4090_llama31_8b/requests.jsonl", "vllm", 300, 10.3, 857, 652),
        ("bench/trace_10000.csv", "csv", 10_000, 4.05, 865, 223),
    ],
)
def test_real_traces_have_their_published_figures(
    name: str, format: str, count: int, rate: float, prompt: float, output: float
) -> None:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set HYBRIDFLEET_DATA to the folder with the data sets")
    workload = TraceWorkload(path)
    got = requests(workload)
    assert workload.file.format == format
    assert len(got) == count
    assert got.arrival_s[0] == 0.0
    assert len(got) / got.arrival_s[-1] == pytest.approx(rate, rel=0.005)
    assert got.prompt_tokens.mean() == pytest.approx(prompt, rel=0.001)
    assert got.output_tokens.mean() == pytest.approx(output, rel=0.005)

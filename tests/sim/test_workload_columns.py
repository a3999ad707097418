"""What traces tell of their requests besides lengths: tenants, priorities, deadlines, adapters and images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sim.errors import InputError
from sim.request import Traits
from sim.rng import Streams
from sim.workload import TraceWorkload

HEAD = "arrived_at,num_prefill_tokens,num_decode_tokens"
MULTIMODAL = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
NAMES = {name: name for name in Traits._fields}


def write(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def traits(workload: TraceWorkload) -> list[Traits]:
    return [row for batch in workload.batches(Streams(0)) for row in batch.traits or ()]


def prompts(workload: TraceWorkload) -> list[int]:
    return [tokens for batch in workload.batches(Streams(0)) for tokens in batch.prompt_tokens.tolist()]


def test_a_csv_with_every_column(tmp_path: Path) -> None:
    text = (
        f"{HEAD},{','.join(NAMES)}\n"
        "0,900,5,acme,2,1.5,sql,1,576,1,3\n1,900,5,beta,,,,,,,\n2,900,5,acme,-1,9,law,0,0,0,0\n"
    )
    workload = TraceWorkload(write(tmp_path, text), columns=NAMES)
    assert traits(workload) == [
        Traits(0, 2, 1.5, 1, 1, 576, 1, 3),
        Traits(1, 0, math.inf, 0, 0, 0, 0),
        Traits(0, -1, 9.0, 2, 0, 0, 0),
    ]
    assert traits(workload) == traits(workload)  # names get the same numbers again
    assert prompts(workload) == [900] * 3


def test_numbers_of_tenants_and_adapters_are_kept(tmp_path: Path) -> None:
    text = f"{HEAD},who,lora\n0,9,5,7,3\n1,9,5,2,0\n2,9,5,7,\n"
    got = traits(TraceWorkload(write(tmp_path, text), columns={"tenant": "who", "adapter": "lora"}))
    assert [(row.tenant, row.adapter) for row in got] == [(7, 3), (2, 0), (7, 0)]


def test_json_lines_may_leave_keys_out(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"timestamp": 0, "prompt_len": 5, "output_len": 6, "user": "a", "due": 2.5},
        {"timestamp": 1, "prompt_len": 5, "output_len": 6},
    ]
    path = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "t.jsonl")
    got = traits(TraceWorkload(path, columns={"tenant": "user", "deadline_s": "due"}))
    assert [(row.tenant, row.deadline_s) for row in got] == [(0, 2.5), (0, math.inf)]


def test_the_azure_multimodal_layout(tmp_path: Path) -> None:
    text = MULTIMODAL + "2024-10-15 00:00:00,2,1500,6\n2024-10-15 00:00:01,0,80,6\n2024-10-15 00:00:02,3,1500,6\n"
    path = write(tmp_path, text)
    assert TraceWorkload(path).file.format == "azure"
    assert [(row.images, row.image_tokens) for row in traits(TraceWorkload(path))] == [(2, 0), (0, 0), (3, 0)]
    inside = TraceWorkload(path, images={"tokens": 576})
    assert [(row.images, row.image_tokens) for row in traits(inside)] == [(2, 1152), (0, 0), (3, 1500)]
    assert prompts(inside) == [1500, 80, 1500]
    assert prompts(TraceWorkload(path, images={"tokens": 576, "added": True})) == [2652, 80, 3228]


def test_sorting_windows_and_failed_rows_keep_traits_with_their_requests(tmp_path: Path) -> None:
    text = f"{HEAD},who\n" + "".join(f"{t},{t + 1},{0 if t == 4 else 1},{t}\n" for t in (0, 3, 1, 2, 4, 5))
    workload = TraceWorkload(
        write(tmp_path, text), columns={"tenant": "who"}, sort=True, drop_failed=True, start_s=1.0, duration_s=5.0
    )
    assert [row.tenant for row in traits(workload)] == [1, 2, 3, 5]
    assert prompts(workload) == [2, 3, 4, 6]


def test_what_the_trace_does_not_tell_is_drawn(tmp_path: Path) -> None:
    text = f"{HEAD},who\n" + "".join(f"{t},9,9,{t % 2}\n" for t in range(20_000))
    path = write(tmp_path, text)
    workload = TraceWorkload(
        path, columns={"tenant": "who"}, adapters={"count": 2}, priorities={"levels": [4, 6], "by": "tenant"}
    )
    got = traits(workload)
    assert [row.tenant for row in got[:3]] == [0, 1, 0]
    assert [row.priority for row in got[:3]] == [4, 6, 4]
    assert sum(row.adapter == 1 for row in got) / len(got) == pytest.approx(0.5, rel=0.03)


def test_another_adapter_shares_no_prefix_of_a_trace(tmp_path: Path) -> None:
    rows = [
        {"timestamp": t, "input_length": 1024, "output_length": 1, "hash_ids": [1, 2], "lora": t % 2} for t in range(4)
    ]
    path = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "t.jsonl")
    batch = next(TraceWorkload(path, columns={"adapter": "lora"}).batches(Streams(0)))
    assert batch.hashes is not None
    assert batch.hashes[0] == batch.hashes[2] != batch.hashes[1]
    assert not set(batch.hashes[0]) & set(batch.hashes[1])


@pytest.mark.parametrize(
    ("column", "cell", "value"),
    [
        ("tenant", "-3", "-3"),
        ("tenant", "acme", "acme"),
        ("priority", "high", "high"),
        ("priority", "0.5", "0.5"),
        ("deadline_s", "0", "0"),
        ("deadline_s", "nan", "nan"),
        ("adapter", "1e9", "1e9"),
        ("images", "-1", "-1"),
        ("image_tokens", "many", "many"),
    ],
)
def test_cells_that_cannot_be_used_are_named_by_line(tmp_path: Path, column: str, cell: str, value: str) -> None:
    path = write(tmp_path, f"{HEAD},x\n0,1,1,1\n1,1,1,{cell}\n")
    with pytest.raises(InputError) as caught:
        traits(TraceWorkload(path, columns={column: "x"}))
    assert (caught.value.key, caught.value.value, caught.value.where) == ("x", value, f"{path} line 3")


def test_image_tokens_without_an_image_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, f"{HEAD},n,t\n0,9,1,0,4\n")
    with pytest.raises(InputError, match=r"line 2: t=4.*without an image"):
        traits(TraceWorkload(path, columns={"images": "n", "image_tokens": "t"}))
    alone = traits(TraceWorkload(path, columns={"image_tokens": "t"}))
    assert [(row.images, row.image_tokens) for row in alone] == [(1, 4)]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"columns": {"tenant": "nobody"}}, "columns"),
        ({"columns": {"tenants": "who"}}, "workload.columns.tenants"),
        ({"columns": {"tenant": "who"}, "tenants": {"count": 2}}, "workload.tenants"),
        ({"columns": {"images": "who"}, "images": {"tokens": 5, "share": 0.5}}, "workload.images"),
        ({"columns": {"image_tokens": "who"}, "images": {"tokens": 5}}, "workload.images.tokens"),
        ({"columns": {"images": "who"}, "images": {}}, "workload.images.tokens"),
        ({"adapters": {"count": 0}}, "workload.adapters.count"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, arguments: dict[str, Any], key: str) -> None:
    path = write(tmp_path, f"{HEAD},who\n0,1,1,1\n")
    with pytest.raises(InputError) as caught:
        TraceWorkload(path, **arguments)
    assert caught.value.key == key


def test_a_tenant_without_a_level_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, f"{HEAD},who\n0,1,1,0\n1,1,1,2\n")
    with pytest.raises(InputError, match="number 2, from 0, occurs"):
        traits(TraceWorkload(path, columns={"tenant": "who"}, priorities={"levels": [0, 1], "by": "tenant"}))

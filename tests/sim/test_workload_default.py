"""Synthetic workloads, and what `conf/workload` and `conf/slo` ship: the default matches the published trace."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy import stats

from scenarios.targets import instantiate
from sim.errors import InputError
from sim.qoe import SLOClass
from sim.rng import Streams
from sim.workload import Fixed, Poisson, RequestBatch, SyntheticWorkload, TraceWorkload, Workload

CONF = Path(__file__).parents[2] / "conf"
DATA = Path(os.environ.get("HYBRIDFLEET_DATA", Path(__file__).parents[3] / "shared" / "data"))
CONV = DATA / "traces/azure2023/AzureLLMInferenceTrace_conv.csv"
WORKLOADS = sorted(path.stem for path in (CONF / "workload").glob("*.yaml"))
SYNTHETIC = [name for name in WORKLOADS if not name.endswith("trace") and name != "servegen"]  # these read files
LENGTHS = sorted(path.stem for path in (CONF / "workload" / "lengths").glob("*.yaml"))
SLOS = sorted(path.stem for path in (CONF / "slo").glob("*.yaml"))
KINDS = {"measured", "published", "derived", "assumed"}
CLASSES = (SLOClass("chat"), SLOClass("batch"))


def group(*overrides: str) -> dict[str, Any]:
    """The `workload` group as the programs see it: composed, resolved, plain."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(overrides=[f"+{o}" if o.startswith("workload=") else o for o in overrides])
    plain = OmegaConf.to_container(cfg.workload, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def shipped(*overrides: str, **injected: Any) -> Any:
    """A workload out of `conf/workload`."""
    return instantiate(group(*overrides), "workload", **injected)


def requests(workload: Workload, seed: int = 0) -> RequestBatch:
    """All batches as one."""
    batches = list(workload.batches(Streams(seed)))
    columns = zip(*((b.arrival_s, b.prompt_tokens, b.output_tokens, b.slo_class) for b in batches))
    return RequestBatch(*(np.concatenate(column) for column in columns))


@pytest.fixture(scope="module")
def default() -> SyntheticWorkload:
    workload = shipped("workload=azure_conv_2023")
    assert isinstance(workload, SyntheticWorkload)
    return workload


@pytest.mark.parametrize("seed", range(8))
def test_default_reproduces_the_published_figures(default: SyntheticWorkload, seed: int) -> None:
    got = requests(default, seed)
    gaps = np.diff(got.arrival_s)
    figures = {
        "rate": (len(got) / 3600.0, 5.53),
        "cv": (gaps.std() / gaps.mean(), 1.09),
        "prompt mean": (got.prompt_tokens.mean(), 1155),
        "prompt p50": (np.percentile(got.prompt_tokens, 50), 1020),
        "prompt p99": (np.percentile(got.prompt_tokens, 99), 4142),
        "output mean": (got.output_tokens.mean(), 211),
        "output p50": (np.percentile(got.output_tokens, 50), 129),
        "output p99": (np.percentile(got.output_tokens, 99), 601),
    }
    for name, (value, published) in figures.items():
        assert value == pytest.approx(published, rel=0.03), name
    assert got.arrival_s.max() < 3600.0
    assert default.expected_requests() == pytest.approx(len(got), rel=0.04)


@pytest.mark.parametrize(("name", "file"), [("azure_conv_2023", "conv"), ("azure_code_2023", "code")])
def test_embedded_lengths_match_the_real_trace(name: str, file: str) -> None:
    path = CONV.with_name(f"AzureLLMInferenceTrace_{file}.csv")
    if not path.exists():
        pytest.skip(f"{path} is not there; set HYBRIDFLEET_DATA to the folder with the data sets")
    real = requests(TraceWorkload(path))
    drawn = requests(shipped(f"workload={name}", "workload.duration_s=null", "workload.limit=300000"))
    for column in ("prompt_tokens", "output_tokens"):
        ours, theirs = getattr(drawn, column), getattr(real, column)
        assert stats.ks_2samp(ours, theirs).statistic < 0.005
        assert ours.mean() == pytest.approx(theirs.mean(), rel=0.01)
        for q in (1, 10, 50, 90, 99):
            assert np.percentile(ours, q) == pytest.approx(np.percentile(theirs, q), rel=0.02, abs=1)
    ours, theirs = (stats.spearmanr(got.prompt_tokens, got.output_tokens).statistic for got in (drawn, real))
    assert ours == pytest.approx(theirs, abs=0.01)
    gaps = np.diff(real.arrival_s)
    knobs = group(f"workload={name}")
    assert len(real) / real.arrival_s[-1] == pytest.approx(knobs["rate"], rel=0.005)
    assert gaps.std() / gaps.mean() == pytest.approx(knobs["cv"], rel=0.005)


def test_more_requests_only_append(default: SyntheticWorkload) -> None:
    parts = (default.arrivals, default.lengths)
    short = requests(SyntheticWorkload(*parts, limit=5000, slo_classes=CLASSES, slo_mix=(1, 1)), 3)
    long = requests(SyntheticWorkload(*parts, limit=20_000, slo_classes=CLASSES, slo_mix=(1, 1)), 3)
    timed = requests(SyntheticWorkload(*parts, duration_s=500.0, slo_classes=CLASSES, slo_mix=(1, 1)), 3)
    assert len(short) == 5000
    for column in ("arrival_s", "prompt_tokens", "output_tokens", "slo_class"):
        np.testing.assert_array_equal(getattr(short, column), getattr(long, column)[:5000])
        np.testing.assert_array_equal(getattr(timed, column), getattr(long, column)[: len(timed)])
    assert long.arrival_s[len(timed)] >= 500.0


def test_streams_are_independent_of_each_other(default: SyntheticWorkload) -> None:
    ours = requests(default)
    other = requests(SyntheticWorkload(Poisson(1.0), default.lengths, limit=5000))
    np.testing.assert_array_equal(ours.prompt_tokens[:5000], other.prompt_tokens)
    fixed = requests(SyntheticWorkload(default.arrivals, Fixed(1, 1), duration_s=3600.0))
    np.testing.assert_array_equal(ours.arrival_s, fixed.arrival_s)


def test_batches_stay_small_and_repeat(default: SyntheticWorkload) -> None:
    sizes = [len(batch) for batch in default.batches(Streams(0))]
    assert max(sizes) <= 4096
    first, again, other = (requests(default, seed).arrival_s for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first[:100] != other[:100]).any()


def test_slo_mix_gives_each_class_its_share() -> None:
    workload = SyntheticWorkload(
        Poisson(1.0), Fixed(1, 1), limit=50_000, slo_classes=(*CLASSES, SLOClass("none")), slo_mix=(1, 3, 0)
    )
    shares = np.bincount(requests(workload).slo_class, minlength=3) / 50_000
    np.testing.assert_allclose(shares, [0.25, 0.75, 0.0], atol=0.01)
    assert shares[2] == 0.0


def test_a_process_that_ends_ends_the_workload() -> None:
    workload = shipped("workload=time_varying", "workload.arrivals.knots=[[0,20],[100,0]]", "workload.duration_s=1e9")
    assert len(requests(workload)) == pytest.approx(1000, abs=130)


class Unhelpful:
    """An arrival process of a user's own that says nothing of its count."""

    def times(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        yield np.array([])
        yield np.array([1.0, 2.0])


def test_a_users_own_arrival_process() -> None:
    workload = SyntheticWorkload(Unhelpful(), Fixed(3, 4), duration_s=10.0)
    assert workload.expected_requests() is None
    np.testing.assert_array_equal(requests(workload).arrival_s, [1.0, 2.0])


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({}, "workload.duration_s"),
        ({"duration_s": 0}, "workload.duration_s"),
        ({"duration_s": math.nan}, "workload.duration_s"),
        ({"duration_s": "1h"}, "workload.duration_s"),
        ({"limit": 0}, "workload.limit"),
        ({"limit": 10.5}, "workload.limit"),
        ({"limit": 5, "arrivals": 4.0}, "workload.arrivals"),
        ({"limit": 5, "lengths": None}, "workload.lengths"),
        ({"limit": 5, "slo_classes": ["chat"]}, "slo.classes"),
        ({"limit": 5, "slo_mix": (1, 1)}, "workload.slo_mix"),
        ({"limit": 5, "slo_mix": (-1,)}, "workload.slo_mix"),
        ({"limit": 5, "rte": 4.0}, "workload.rte"),
        ({"limit": 5, "rate": 9.0}, "workload.rate"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        SyntheticWorkload(**{"arrivals": Poisson(4.0), "lengths": Fixed(1, 1), **arguments})
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_every_synthetic_workload_takes_limit_and_duration(name: str) -> None:
    got = requests(shipped(f"workload={name}", "workload.duration_s=null", "workload.limit=50"))
    assert len(got) == 50
    assert requests(shipped(f"workload={name}", "workload.duration_s=600")).arrival_s.max() < 600.0


@pytest.mark.parametrize("name", [name for name in SYNTHETIC if name != "users"])  # who come back when they are done
def test_every_synthetic_workload_takes_a_rate(name: str) -> None:
    slow, fast = (
        shipped(f"workload={name}", f"workload.rate={rate}", "workload.duration_s=86400").expected_requests()
        for rate in (2, 4)
    )
    assert fast == pytest.approx(2 * slow, rel=1e-6)


@pytest.mark.parametrize("name", LENGTHS)
def test_every_length_model_can_be_chosen(name: str) -> None:
    got = requests(shipped("workload=poisson", f"workload/lengths={name}", "workload.limit=100"))
    assert min(got.prompt_tokens.min(), got.output_tokens.min()) >= 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("azure_trace", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,5,6\n"),
        ("azure_multimodal_trace", "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 00:00:00,1,5,6\n"),
        ("burstgpt_trace", "Timestamp,Request tokens,Response tokens\n3,5,6\n3,4,0\n"),
        ("csv_trace", "arrived_at,num_prefill_tokens,num_decode_tokens\n3,5,6\n"),
        ("mooncake_trace", '{"timestamp": 3, "input_length": 5, "output_length": 6}\n'),
        ("vllm_trace", '{"timestamp": 3, "prompt_len": 5, "output_len": 6}\n'),
        ("trace", '{"timestamp": 3, "prompt_len": 5, "output_len": 6}\n'),
    ],
)
def test_every_trace_workload_reads_its_format(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    got = requests(shipped(f"workload={name}", f"workload.path={path}", slo_classes=CLASSES, slo_mix=(0, 1)))
    assert (got.prompt_tokens[0], got.output_tokens[0], got.slo_class[0], len(got)) == (5, 6, 1, 1)


@pytest.mark.parametrize("name", SLOS)
def test_every_slo_file_makes_classes(name: str) -> None:
    slo = OmegaConf.to_container(OmegaConf.load(CONF / "slo" / f"{name}.yaml"))
    assert isinstance(slo, dict)
    for row in slo["classes"]:
        weight = row.pop("weight")
        assert weight > 0.0
        made = SLOClass(**{key: math.inf if value is None else value for key, value in row.items()})
        assert 0.0 < made.tpot_s <= made.ttft_s < math.inf or name in ("code_completion", "batch")


@pytest.mark.parametrize("path", sorted([*CONF.glob("workload/**/*.yaml"), *CONF.glob("slo/*.yaml")]), ids=str)
def test_every_file_names_its_sources(path: Path) -> None:
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(content, dict)
    about = content["about"]
    rows = [row for row in about.values() if isinstance(row, dict)]
    assert rows or about["source"]
    for row in rows:
        assert set(row) == {"value", "unit", "source", "kind"}
        assert row["kind"] in KINDS
        assert row["source"]
    if path.parent.name != "lengths":
        assert about["description"]

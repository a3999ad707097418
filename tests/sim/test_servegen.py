"""Client mixes: rates, burstiness, lengths and images by client and time of day; bad files; published aggregates."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from sim import InputError
from sim.rng import Streams
from sim.workload import ServeGenWorkload
from sim.workload.client_files import Client, read_clients

DATA = Path(os.environ.get("HYBRIDFLEET_DATA", Path(__file__).parents[3] / "shared" / "data"))
LENGTHS = {"input_tokens": "{100: 0.5, 300: 0.5}", "output_tokens": "{10: 0.25, 20: 0.75}"}


def client(
    folder: Path, name: str, rows: list[str], data: dict[str, dict[str, str]] | None, trace: str | None = None
) -> None:
    (folder / f"{name}-trace.csv").write_text(trace if trace is not None else "".join(f"{row}\n" for row in rows))
    if data is not None:
        (folder / f"{name}-dataset.json").write_text(json.dumps(data))


def steady(folder: Path, name: str, rate: float, windows: int = 4, shape: float = 1.0, law: str = "Gamma") -> None:
    client(folder, name, [f"{600 * i},{rate},1,{law},{shape},1" for i in range(windows)], {"0": LENGTHS})


def drawn(workload: ServeGenWorkload, seed: int = 0) -> dict[str, Any]:
    batches = list(workload.batches(Streams(seed)))
    found = {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("arrival_s", "prompt_tokens", "output_tokens", "slo_class")
    }
    rows = [row for batch in batches for row in batch.traits or ()]
    return found | {
        name: np.array([getattr(row, name) for row in rows]) for name in ("tenant", "images", "image_tokens")
    }


def test_every_client_has_its_rate_window_by_window(tmp_path: Path) -> None:
    client(tmp_path, "chunk-2", ["0,2,1,Gamma,1,1", "600,0,0,,0,0", "1200,8,1,Weibull,1,1"], {"0": LENGTHS})
    steady(tmp_path, "chunk-10", 4.0, 3)
    got = drawn(ServeGenWorkload(tmp_path))
    assert (np.diff(got["arrival_s"]) >= 0.0).all()
    for tenant, expected in ((0, (1200, 0, 4800)), (1, (2400, 2400, 2400))):  # names by number: 2 before 10
        times = got["arrival_s"][got["tenant"] == tenant]
        counts = np.histogram(times, [0, 600, 1200, 1800])[0]
        for count, mean in zip(counts, expected):
            assert abs(count - mean) <= 4.0 * math.sqrt(mean)


@pytest.mark.parametrize(("law", "shape", "cv"), [("Gamma", 0.25, 2.0), ("Gamma", 4.0, 0.5), ("Weibull", 0.5, 5**0.5)])
def test_gaps_have_the_shape_of_their_law(tmp_path: Path, law: str, shape: float, cv: float) -> None:
    client(tmp_path, "a", [f"0,2,9,{law},{shape},77", "20000,0,0,,0,0"], {"0": LENGTHS})
    gaps = np.diff(drawn(ServeGenWorkload(tmp_path))["arrival_s"])
    assert gaps.mean() == pytest.approx(0.5, rel=4.0 * cv / math.sqrt(40_000))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.08)


def test_a_bursty_window_keeps_its_rate_without_bias(tmp_path: Path) -> None:
    client(tmp_path, "a", [f"{600 * i},0.05,6,Gamma,0.03,1" for i in range(4000)], {"0": LENGTHS})
    count = len(drawn(ServeGenWorkload(tmp_path))["arrival_s"])
    # a count has at most the variance that it would have with all gaps of the window, of CV 5.8
    assert count == pytest.approx(30 * 4000, abs=4.0 * 5.8 * math.sqrt(30 * 4000))


def test_a_higher_scale_raises_rates_and_leaves_the_day(tmp_path: Path) -> None:
    steady(tmp_path, "a", 2.0)
    got = drawn(ServeGenWorkload(tmp_path, rate_scale=3.0))["arrival_s"]
    assert len(got) == pytest.approx(14_400, abs=4 * 120)
    assert 2390.0 < got[-1] < 2400.0
    assert ServeGenWorkload(tmp_path, rate_scale=3.0, duration_s=700.0).expected_requests() == pytest.approx(4200.0)


def test_lengths_follow_the_distributions_of_their_time(tmp_path: Path) -> None:
    later = {"input_tokens": "{7: 1.0, 8: 0}", "output_tokens": "{1: 2, 3: 2}"}
    rows = ["0,5,1,Gamma,1,1", "3600,5,1,Gamma,1,1"]
    client(tmp_path, "a", rows, {"0": LENGTHS, "3600": later})
    got = drawn(ServeGenWorkload(tmp_path))
    early = got["arrival_s"] < 3600.0
    n = int(early.sum())
    assert np.mean(got["prompt_tokens"][early] == 100) == pytest.approx(0.5, abs=2.0 / math.sqrt(n))
    assert np.mean(got["output_tokens"][early] == 10) == pytest.approx(0.25, abs=2.0 / math.sqrt(n))
    assert set(got["prompt_tokens"][~early].tolist()) == {7}
    assert np.mean(got["output_tokens"][~early] == 1) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("rho", [0.0, 0.8, -0.5])
def test_prompt_and_output_are_independent_or_joined_by_the_copula(tmp_path: Path, rho: float) -> None:
    wide = str(dict.fromkeys(range(1, 2001), 1.0))
    client(tmp_path, "a", ["0,4,1,Gamma,1,1", "3600,0,0,,0,0"], {"0": dict.fromkeys(LENGTHS, wide)})
    got = drawn(ServeGenWorkload(tmp_path, rho=rho))
    expected = 6.0 / math.pi * math.asin(rho / 2.0)
    assert spearmanr(got["prompt_tokens"], got["output_tokens"]).statistic == pytest.approx(expected, abs=0.035)


def test_images_are_part_of_prompts_and_grow_with_their_number(tmp_path: Path) -> None:
    fields = {
        "text_tokens": "{50: 1.0}", "image_tokens": "{0: 0.25, 200: 0.25, 900: 0.5}",
        "image_count": "{0: 0.25, 1: 0.5, 4: 0.25}", "audio_tokens": "{0: 0.5, 30: 0.5}", "output_tokens": "{5: 1}",
    }  # fmt: skip
    client(tmp_path, "a", ["0,4,1,Gamma,1,1", "600,0,0,,0,0"], {"0": fields})
    got = drawn(ServeGenWorkload(tmp_path))
    pairs = set(zip(got["images"].tolist(), got["image_tokens"].tolist()))
    assert pairs == {(0, 0), (1, 200), (1, 900), (4, 900)}
    assert set((got["prompt_tokens"] - got["image_tokens"]).tolist()) == {50, 80}


def test_a_share_of_the_output_is_hidden_and_one_token_is_seen(tmp_path: Path) -> None:
    fields = LENGTHS | {"output_tokens": "{1: 1.0, 100: 1.0}", "reason_ratio": "{0.0: 0.25, 0.5: 0.5, 1.0: 0.25}"}
    client(tmp_path, "a", ["0,4,1,Gamma,1,1", "600,0,0,,0,0"], {"0": fields})
    batches = list(ServeGenWorkload(tmp_path).batches(Streams(0)))
    hidden = np.array([row.reasoning_tokens for batch in batches for row in batch.traits or ()])
    output = np.concatenate([batch.output_tokens for batch in batches])
    assert set(hidden[output == 1].tolist()) == {0}
    assert set(hidden[output == 100].tolist()) == {0, 50, 99}
    assert np.mean(hidden[output == 100] == 50) == pytest.approx(0.5, abs=0.06)


def test_a_part_of_the_day_or_of_the_clients_has_the_requests_of_the_whole(tmp_path: Path) -> None:
    for number in range(6):
        steady(tmp_path, f"c{number}", 0.5 + 0.1 * number)
    whole = drawn(ServeGenWorkload(tmp_path))
    part = drawn(ServeGenWorkload(tmp_path, start_s=700.0, duration_s=900.0))
    inside = (whole["arrival_s"] >= 700.0) & (whole["arrival_s"] < 1600.0)
    np.testing.assert_allclose(part["arrival_s"] + 700.0, whole["arrival_s"][inside], rtol=0, atol=1e-9)
    assert (part["prompt_tokens"] == whole["prompt_tokens"][inside]).all()
    some = drawn(ServeGenWorkload(tmp_path, client_share=0.5))
    chosen = set(some["tenant"].tolist())
    assert len(chosen) == 3
    assert (some["arrival_s"] == whole["arrival_s"][np.isin(whole["tenant"], list(chosen))]).all()
    first = drawn(ServeGenWorkload(tmp_path, limit=100))
    assert (first["arrival_s"] == whole["arrival_s"][:100]).all()
    assert set(drawn(ServeGenWorkload(tmp_path, client_share=0.5), seed=1)["tenant"].tolist()) != chosen


def test_windows_of_clients_need_not_begin_together(tmp_path: Path) -> None:
    client(tmp_path, "a", ["0,2,1,Gamma,1,1", "1000,2,1,Gamma,1,1"], {"0": LENGTHS})
    client(tmp_path, "b", ["300,4,1,Gamma,1,1", "500,4,1,Gamma,1,1"], {"0": LENGTHS})
    got = drawn(ServeGenWorkload(tmp_path))
    assert (np.diff(got["arrival_s"]) >= 0.0).all()
    assert (got["tenant"] == 0).sum() == pytest.approx(4000, abs=4 * 64)
    assert (got["tenant"] == 1).sum() == pytest.approx(1600, abs=4 * 40)


GOOD = "0,1,1,Gamma,1,1\n600,1,1,Gamma,1,1\n"


@pytest.mark.parametrize(
    ("trace", "data", "message"),
    [
        ("0,1,1,Gamma,1\n", LENGTHS, r"a-trace\.csv line 1: row='0,1,1,Gamma,1' is not valid; accepted: 6 fields"),
        (GOOD + "x,1,1,Gamma,1,1\n", LENGTHS, r"a-trace\.csv line 3: row="),
        (GOOD + "900,-1,1,Gamma,1,1\n", LENGTHS, r"line 3: row=.*a rate from 0"),
        (GOOD + "900,nan,1,Gamma,1,1\n", LENGTHS, r"line 3: row=.*a rate from 0"),
        (GOOD + "900,1,1,Pareto,1,1\n", LENGTHS, r"line 3: row=.*Gamma \| Weibull with a shape > 0"),
        (GOOD + "900,1,1,Gamma,0,1\n", LENGTHS, r"line 3: row=.*Gamma \| Weibull with a shape > 0"),
        (GOOD + "600,1,1,Gamma,1,1\n", LENGTHS, r"line 3: start=600\.0 is not valid; accepted: a later start"),
        ("", LENGTHS, r"at least two windows"),
        (GOOD, LENGTHS | {"input_tokens": "{}"}, r"a-dataset\.json window 0: input_tokens=.*not an empty one"),
        (
            GOOD,
            LENGTHS | {"input_tokens": "__import__('os').getcwd()"},
            r"window 0: input_tokens=.*a Python dictionary",
        ),
        (GOOD, LENGTHS | {"input_tokens": "{1: -1}"}, r"window 0: input_tokens=.*probabilities >= 0"),
        (GOOD, LENGTHS | {"input_tokens": "{-1: 1}"}, r"window 0: input_tokens=.*values from 0"),
        (GOOD, LENGTHS | {"input_tokens": "{'a': 1}"}, r"window 0: input_tokens="),
        (GOOD, LENGTHS | {"input_tokens": "{1: 0}"}, r"window 0: input_tokens="),
        (GOOD, {"output_tokens": "{1: 1}"}, r"window 0: input_tokens=None"),
        (GOOD, {"input_tokens": "{1: 1}"}, r"window 0: output_tokens=None"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path: Path, trace: str, data: dict[str, str], message: str) -> None:
    client(tmp_path, "a", [], {"0": data}, trace)
    with pytest.raises(InputError, match=message) as error:
        drawn(ServeGenWorkload(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[1]", "{", '{"0": 3}', '{"x": {}}', "{}"])
def test_bad_data_sets_are_one_clear_line(tmp_path: Path, text: str) -> None:
    client(tmp_path, "a", [], None, GOOD)
    (tmp_path / "a-dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"a-dataset\.json.* a JSON object"):
        ServeGenWorkload(tmp_path)


def test_folders_without_clients_or_data_sets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none here"):
        ServeGenWorkload(tmp_path)
    with pytest.raises(InputError, match="a folder with files"):
        ServeGenWorkload(tmp_path / "gone")
    steady(tmp_path, "a", 1.0)
    client(tmp_path, "b", [], None, GOOD)
    with pytest.raises(InputError, match=r"b-dataset\.json.*drop_incomplete"):
        ServeGenWorkload(tmp_path)
    assert set(drawn(ServeGenWorkload(tmp_path, drop_incomplete=True))["tenant"].tolist()) == {0}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("client_share", 0.0),
        ("client_share", 1.5),
        ("rate_scale", 0.0),
        ("rho", 1.1),
        ("start_s", 2400.0),
        ("limit", 0),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, key: str, value: float) -> None:
    steady(tmp_path, "a", 1.0)
    with pytest.raises(InputError, match=f"workload.{key}"):
        ServeGenWorkload(tmp_path, **{key: value})


def test_a_part_of_the_day_without_requests_is_refused(tmp_path: Path) -> None:
    client(tmp_path, "a", ["0,0,0,,0,0", "600,1,1,Gamma,1,1"], {"0": LENGTHS})
    with pytest.raises(InputError, match="at least one request"):
        drawn(ServeGenWorkload(tmp_path, duration_s=600.0))


# -- the published mixes -----------------------------------------------------------------------------------------------

MIXES = {
    # rate [1/s], and mean, p50 and p99 of each field with a client's windows in equal parts, as published
    "reason/deepseek-r1": (16.0, {"input_tokens": (1596, 266, 25753), "output_tokens": (1690, 807, 13533)}),
    "multimodal/mm-image": (9.5, {"text_tokens": (568,), "image_tokens": (592,), "output_tokens": (127, 98, 583)}),
}


def clients_of(mix: str) -> list[Client]:
    path = DATA / "traces" / "servegen" / mix
    if not path.is_dir():
        pytest.skip(f"{path} is not there; set HYBRIDFLEET_DATA to the folder with the data sets")
    return read_clients(path)


def weights(each: Client, window: int) -> float:
    """Requests of a client in one of its data set's windows, on average."""
    assert each.data is not None
    return sum(w.rate * (w.end_s - w.start_s) for w in each.windows if each.data.at(w.start_s) == window)


def aggregate(clients: list[Client], field: str, only: int | None = None) -> tuple[float, float, float]:
    """Mean, p50 and p99 of a field over all clients: by the requests of one window, or windows in equal parts."""
    total: dict[float, float] = {}
    for each in clients:
        assert each.data is not None
        by_window = [weights(each, i) for i in range(len(each.data.starts_s))]
        for i, requests in enumerate(by_window):
            weight = sum(by_window) / len(by_window) if only is None else requests * (i == only)
            text = each.data._texts[i][field]
            if weight and text != "{}":
                law = each.data.of(i, field)
                for value, p in zip(law.values, np.diff(law.cumulative, prepend=0.0)):
                    total[value] = total.get(value, 0.0) + weight * p
    values = np.array(sorted(total))
    share = np.array([total[value] for value in values])
    cumulative = np.cumsum(share) / share.sum()
    p50, p99 = (float(values[np.searchsorted(cumulative, q)]) for q in (0.5, 0.99))
    return float((values * share).sum() / share.sum()), p50, p99


@pytest.mark.parametrize("mix", MIXES)
def test_published_aggregates(mix: str) -> None:
    clients, (rate, fields) = clients_of(mix), MIXES[mix]
    requests = sum(w.rate * (w.end_s - w.start_s) for each in clients for w in each.windows)
    assert round(2 * requests / 86_400) == 2 * rate
    for field, published in fields.items():
        assert [round(x) for x in aggregate(clients, field)[: len(published)]] == list(published)


@pytest.mark.parametrize("mix", MIXES)
def test_drawn_requests_have_the_rate_and_lengths_of_the_mix(mix: str) -> None:
    clients = clients_of(mix)
    got = drawn(ServeGenWorkload(DATA / "traces" / "servegen" / mix, start_s=43_200.0, duration_s=21_600.0))
    assert len(got["arrival_s"]) == pytest.approx(sum(weights(each, 2) for each in clients), rel=0.02)
    lengths = {"input_tokens": got["prompt_tokens"], "output_tokens": got["output_tokens"]}
    if got["images"].any():
        text = got["prompt_tokens"] - got["image_tokens"]
        lengths = {"text_tokens": text, "image_tokens": got["image_tokens"], "output_tokens": got["output_tokens"]}
    for field, values in lengths.items():
        mean, p50, p99 = aggregate(clients, field, only=2)
        assert values.mean() == pytest.approx(mean, rel=0.02)
        assert np.percentile(values, 50) == pytest.approx(p50, rel=0.04)
        assert np.percentile(values, 99) == pytest.approx(p99, rel=0.04)

"""Images: what their encoding takes, worked out by hand, and that it is paid once and by whom it was for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from sim import EngineSettings, InputError, Pool, Result, SLOClass, catalogue, run
from sim.hardware.deployment import Deployment
from sim.hardware.encoder import encode_image
from sim.hardware.model import Vision
from sim.request import Traits
from sim.rng import Streams
from sim.routing.load import LeastOutstanding
from sim.workload.base import RequestBatch
from tests.sim.conftest import fleet_of

GEMMA, H100 = catalogue.model("gemma_3_4b"), catalogue.xpu("h100_sxm")


@dataclass
class Pictures:
    """Requests of one prompt length, each with as many images as listed, 256 tokens an image."""

    images: list[int]
    prompt: int = 2000
    slo_classes: tuple[SLOClass, ...] = (SLOClass(),)

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        size = np.ones(len(self.images), dtype=np.int64)
        traits = [Traits(images=count, image_tokens=256 * count) for count in self.images]
        arrival = np.arange(len(size)) * 10.0
        yield RequestBatch(arrival, size * self.prompt, size * 8, size * 0, None, None, traits)

    def expected_requests(self) -> float:
        return float(len(self.images))


def serve(images: list[int], **keys: object) -> Result:
    pool = Pool("p", keys.pop("model", GEMMA), H100, engine=EngineSettings(max_num_batched_tokens=4096), **keys)  # type: ignore[arg-type]
    return run(fleet_of(pool), Pictures(images), LeastOutstanding())


def test_one_gemma_3_image_by_hand() -> None:
    eff, power = H100.timing, H100.power
    flops = 2 * 417e6 * 4096 + 4 * 27 * 1152 * 4096**2  # 3.4 + 2.1 TFLOP
    work_s = flops / (989e12 * eff.compute_eff)
    assert GEMMA.vision is not None
    charge = encode_image(GEMMA.vision, Deployment(GEMMA, H100), 256)
    assert charge.real == pytest.approx(work_s + 27 * eff.layer_overhead_s)
    by_parts = power.compute_w * flops / 989e12 + power.memory_w * 2 * 417e6 / 3350e9
    assert by_parts > power.active_w * work_s
    assert charge.imag == pytest.approx(min(by_parts, ((power.peak_w or 0) - power.static_w) * charge.real))
    half = encode_image(GEMMA.vision, Deployment(GEMMA, H100, 2), 256)
    assert half.real == pytest.approx(work_s / 2 + 27 * eff.layer_overhead_s)


def test_who_sends_images_waits_for_them_and_pays() -> None:
    result = serve([0, 2])
    ttft, joules = result.requests["ttft_s"], result.requests["energy_j"]
    assert GEMMA.vision is not None
    charge = 2 * encode_image(GEMMA.vision, Deployment(GEMMA, H100), 256)
    assert ttft[1] - ttft[0] == pytest.approx(charge.real, rel=1e-9)
    static = H100.power.static_w * charge.real
    assert joules[1] - joules[0] == pytest.approx(charge.imag + static, rel=1e-6)
    shares = (result.requests["energy_provisioned_j"] + result.requests["energy_wasted_j"]).sum()
    assert shares == pytest.approx(sum(result.pools[0].facility_energy_j.values()))


def test_the_tower_takes_memory() -> None:
    assert GEMMA.vision is not None
    blind = replace(GEMMA, vision=None)
    assert GEMMA.weight_bytes("bf16") - blind.weight_bytes("bf16") == 2 * 417e6
    assert serve([0]).pools[0].kv_blocks < serve([0], model=blind).pools[0].kv_blocks


def test_a_model_that_reads_text_alone_refuses_images() -> None:
    blind = replace(GEMMA, vision=None)
    assert len(serve([0, 0], model=blind)) == 2
    with pytest.raises(InputError, match=r"pools\.p\.model='gemma_3_4b'.*vision tower"):
        serve([0, 1], model=blind)
    with pytest.raises(InputError, match="patches_per_token"):
        Vision(1e9, 27, 1152, 0)

"""The vision tower: what it takes to turn a request's images into tokens before they are prefilled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sim.errors import InputError
from sim.hardware.clock import Governor
from sim.hardware.deployment import Deployment
from sim.hardware.model import Vision
from sim.request import Request

if TYPE_CHECKING:
    from sim.fleet.spec import Pool


def encode_image(vision: Vision, deployment: Deployment, tokens: float) -> complex:
    """Encode one image that becomes `tokens` tokens: seconds + 1j * joules of dynamic energy.

    A transformer over the image's patches, each of which sees all others, in 16 bit and sharded over `tp` xPUs:

        FLOP = 2 * params * patches + 4 * layers * hidden * patches^2

    at the rate of the xPU's GEMMs, but no faster than the tower's weights can be read; and launches, one set a layer.
    """
    xpu, tp = deployment.xpu, deployment.tp
    eff, power = xpu.timing, xpu.power
    patches = tokens * vision.patches_per_token
    flops = 2.0 * vision.params * patches + 4.0 * vision.layers * vision.hidden * patches * patches
    peak = xpu.flops("bf16" if "bf16" in xpu.peak_flops else "fp16") * tp
    nbytes, bandwidth = 2.0 * vision.params, xpu.bandwidth_bytes_per_s * tp
    work_s = max(flops / (peak * eff.compute_eff), nbytes / (bandwidth * eff.weight_eff))
    seconds = work_s + vision.layers * eff.layer_overhead_s
    by_work = power.compute_w * flops / peak + power.memory_w * nbytes / bandwidth
    most = float("inf") if power.peak_w is None else (power.peak_w - power.static_w) * seconds
    return complex(seconds, min(max(power.active_w * work_s, by_work), most) * tp)


def encoder(pool: Pool) -> Callable[[Request], complex]:
    """What encoding all images of a request takes on a pool's replica.

    The function raises InputError for a request with images where the pool's model has no vision tower.
    """
    vision, deployment = pool.model.vision, pool.deployment()
    governor = Governor(deployment) if deployment.clocked else None
    known: dict[float, complex] = {}

    def encode(request: Request) -> complex:
        images = request.traits.images
        if not images:
            return 0j
        if vision is None:
            accepted = f"a model with a vision tower, for request {request.id} comes with images"
            raise InputError(f"pools.{pool.name}.model", pool.model.id, accepted)
        tokens = request.traits.image_tokens / images
        if tokens not in known:
            charge = encode_image(vision, deployment, tokens)
            if governor is not None:
                charge = governor.charge(charge, partial(encode_image, vision, tokens=tokens))
            known[tokens] = charge
        return images * known[tokens]

    return encode

"""On what ground the numbers behind a result stand, so that no one takes a guess from a datasheet for a measurement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sim.hardware.catalogue import KINDS, Provenance
from sim.hardware.model import Model
from sim.hardware.xpu import XPU

#: Links matter to tensor parallelism alone, and skew to uneven batches.
_ASIDE = ("timing.link_", "timing.skew_")


def grade(provenance: Provenance, prefix: str = "timing.") -> str:
    """The kind that most constants below `prefix` have, or the weaker of equals: measured | published | derived |
    assumed; "given" where nothing is known of them."""
    kinds = Counter(
        kind for key, (_, _, kind) in provenance.items() if key.startswith(prefix) and not key.startswith(_ASIDE)
    )
    return max(KINDS, key=lambda kind: (kinds[kind], KINDS.index(kind))) if kinds else "given"


def grounding(xpu: XPU, model: Model) -> Mapping[str, str]:
    """Grades of what decides time and energy: the xPU's timing and power, and the model's shape."""
    return {
        "timing": grade(xpu.provenance),
        "power": grade(xpu.provenance, "power."),
        "model": grade(model.provenance, ""),
    }

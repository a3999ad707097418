"""What techniques change in the quality of answers: scores of the model, times what its number formats lose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sim.hardware.catalogue import list_entries, load_entry
from sim.hardware.model import Model


def effective_quality(
    model: Model, precision: str, kv_precision: str | None, search: Iterable[str | Path] = ()
) -> Mapping[str, float]:
    """Scores by benchmark of a model as it is served.

    Entries of the group ``technique`` state the relative change of scores with weights (``weights_int4``) and KV cache
    (``kv_fp8``) in a format. Weights in the format they were published in lose nothing, nor do 16 bit or more.

    Args:
        model: whose own scores count.
        precision, kv_precision: number formats of weights and KV cache; None is 16 bit.
        search: further folders of the catalogue.

    Returns:
        Score by benchmark in [0, 1]; those that the model's entry does not state are absent.
    """
    folders = tuple(search)
    weights = "" if precision == model.checkpoint_precision else f"weights_{precision}"
    factor = 1.0
    for name in (weights, f"kv_{kv_precision}"):
        if name in list_entries("technique", folders):
            factor *= 1.0 + float(load_entry("technique", name, folders).values["quality_change"])
    return {task: score * factor for task, score in model.quality.items()}

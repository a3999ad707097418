"""Some of a model's layers as a model of their own: what one place has where a model is split over several."""

from __future__ import annotations

from dataclasses import replace

from sim.errors import InputError
from sim.hardware.model import LayerRange, Model


def layers_of(model: Model, layers: object, key: str = "layers") -> Model:
    """Layers `first` to `end` - 1 of a model. The first has the embedding table, the last the output head.

    A part without the head has a vocabulary of one: a head of one row, which costs next to nothing.

    Args:
        model: whose layers are all alike.
        layers: (first, end), with 0 <= first < end.
        key: of the configuration, for errors.

    Raises:
        InputError: there are no such layers, they are all of it, or the model's layers differ from one another.
    """
    count = model.layers
    accepted = f"[first, end] with 0 <= first < end <= {count}, and not all {count} layers of {model.id}"
    if not isinstance(layers, list | tuple) or len(layers) != 2 or not all(type(each) is int for each in layers):
        raise InputError(key, layers, accepted)
    first, end = layers
    if not 0 <= first < end <= count or end - first == count:
        raise InputError(key, layers, accepted)
    alike = model.window_layers in (0, count) and model.moe_layers in (0, count) and not model.linear_layers
    if not alike:
        raise InputError(key, layers, f"null for {model.id}, whose layers are not all alike")
    kept = end - first
    table = model.embedding_params or model.head_params  # where input and output share it, both ends have it
    tables = (table if first == 0 else 0.0) + (model.head_params if end == count else model.hidden)
    whole_tables = model.embedding_params + model.head_params
    return replace(
        model,
        id=f"{model.id}[{first}:{end}]",
        layers=kept,
        vocab=model.vocab if end == count else 1,
        params=(model.params - whole_tables) * kept / count + tables,
        params_active=(model.params_active - whole_tables) * kept / count + tables,
        embedding_params=table if first == 0 else 0.0,
        window_layers=kept if model.window_layers else 0,
        moe_layers=kept if model.moe_layers else 0,
        vision=model.vision if first == 0 else None,
        part=LayerRange(model.id, first, end, count),
    )

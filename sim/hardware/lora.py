"""Low-rank adapters: which matrices of a model get one, and how many parameters that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim.errors import InputError, whole
from sim.hardware.model import Model

ATTENTION = ("q", "k", "v", "o")
MLP = ("gate", "up", "down")
TARGETS = (*ATTENTION, *MLP)
_WIDTH_STEP = 8  #: widths of feed-forward layers are multiples of it


@dataclass(frozen=True, slots=True)
class Lora:
    """Adapters of one rank on some matrices of every layer.

    Attributes:
        rank: of the two thin matrices that stand in for a change of each target.
        targets: out of `TARGETS`.

    Source: Hu et al., LoRA (arXiv 2106.09685): rank x (rows + columns) parameters a matrix.
    """

    rank: int
    targets: tuple[str, ...] = ("q", "v")

    def __post_init__(self) -> None:
        whole("rank", self.rank, "a whole number of at least 1", low=1)
        if not self.targets or any(target not in TARGETS for target in self.targets):
            raise InputError("targets", list(self.targets), f"some of {', '.join(TARGETS)}")
        if len(set(self.targets)) < len(self.targets):
            raise InputError("targets", list(self.targets), "targets that occur once")

    def params(self, model: Model) -> float:
        """Parameters of the adapters of a model. Llama 3.1 8B at rank 16 on all seven matrices: 41,943,040.

        Raises:
            InputError: the model lacks a target as one matrix a layer, or the rank is more than a matrix has.
        """
        shapes = target_shapes(model)
        for target in self.targets:
            if target not in shapes:
                raise InputError(
                    "targets", list(self.targets), f"what {model.id} has as one matrix a layer: {', '.join(shapes)}"
                )
            if self.rank > min(shapes[target]):
                raise InputError(
                    "rank", self.rank, f"at most {min(shapes[target])}, the smaller side of {target} in {model.id}"
                )
        return float(model.layers * self.rank * sum(sum(shapes[target]) for target in self.targets))


def target_shapes(model: Model) -> Mapping[str, tuple[int, int]]:
    """Rows and columns of the matrices of a layer by name; without those of experts, of latent or linear attention.

    Feed-forward layers are taken as gated, three matrices of one width, which is what parameters leave of a layer.
    """
    shapes: dict[str, tuple[int, int]] = {}
    if model.attention != "mla" and not model.linear_layers:
        width, kv = model.heads * model.head_dim, model.kv_heads * model.head_dim
        shapes |= {
            "q": (model.hidden, width),
            "k": (model.hidden, kv),
            "v": (model.hidden, kv),
            "o": (width, model.hidden),
        }
        if not model.experts:
            tables = model.embedding_params + model.head_params
            attention = sum(rows * columns for rows, columns in shapes.values())
            left = (model.params - tables) / model.layers - attention
            inner = int(left / (3 * model.hidden)) // _WIDTH_STEP * _WIDTH_STEP
            if inner > 0:
                shapes |= {"gate": (model.hidden, inner), "up": (model.hidden, inner), "down": (inner, model.hidden)}
    return shapes

"""Which KV blocks a sequence holds, and for which layers each of them is.

Layers that keep all of a context and layers that keep a window of it are put into groups of equally many layers. A
*block* is the memory of `block_size` tokens in the layers of one group, so blocks of all groups are of one size and
come from one pool. Groups with a window give blocks back that have fallen out of it. A model whose layers are all alike
has one group. Source: vLLM's documentation, design/hybrid_kv_cache_manager; grouping and admission as in its sources up
to 0.22.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.hardware.model import Model
from sim.units import BYTES_PER_VALUE

_ALIKE = 1.5  #: kinds of layers whose numbers differ by less are filled up to the larger one
_LONGEST = 1 << 40  #: tokens: longer than any context


@dataclass(frozen=True, slots=True)
class KvLayout:
    """The groups of one model.

    Attributes:
        block: tokens a block holds in groups that keep everything.
        full, windowed: groups that keep everything, and that keep a window.
        window: tokens that the latter keep, the newest included.
        windowed_block: tokens a block holds in the latter.
        most_windowed: most blocks that a prompt holds in each of the latter, whose chunks are within the token budget.
    """

    block: int
    full: int = 1
    windowed: int = 0
    window: int = 0
    windowed_block: int = 1
    most_windowed: int = 0

    def held(self, done: int, reach: int) -> int:
        """Blocks of a prompt in the step that computes its tokens from `done` to `reach`."""
        if not self.windowed:
            return -(-reach // self.block)
        kept = -(-reach // self.windowed_block) - max(0, done + 1 - self.window) // self.windowed_block
        return self.windowed * kept - self.full * (-reach // self.block)

    def needs(self, length: int, done: int = 0) -> int:
        """Blocks that have to be free before a prompt of `length` tokens is admitted, of which `done` have KV: never
        less than it will hold at a time."""
        if not self.windowed:
            return -(-length // self.block)
        kept = -(-length // self.windowed_block) - max(0, done + 1 - self.window) // self.windowed_block
        return self.windowed * min(kept, self.most_windowed) - self.full * (-length // self.block)

    def decoding(self, context: int, ahead: int = 0, parts: int = 1) -> int:
        """Blocks of a sequence in a step that reads `context` and has room for `ahead` more, in parts of a token."""
        blocks = -self.full * ((-context - ahead) // (self.block * parts))
        if self.windowed:
            block = self.windowed_block * parts
            out = max(0, context - self.window * parts) // block
            blocks -= self.windowed * ((-context - ahead) // block + out)
        return blocks

    def longest(self, blocks: int) -> int:
        """Tokens of the longest prompt that `blocks` blocks admit."""
        if not self.windowed:
            return blocks * self.block
        low, high = 0, _LONGEST
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.needs(middle) <= blocks else (low, middle)
        return low


def group_layers(full: int, windowed: int) -> int:
    """Layers a group: as many as the rarer kind has, or as the other if that has not many more."""
    fewest, most = sorted((full or windowed, windowed or full))
    return most if most < _ALIKE * fewest else fewest


def layout_of(model: Model, tp: int, block_size: int, budget: int) -> KvLayout:
    """The groups of a model with windowed layers.

    Args:
        model: what is served, on `tp` xPUs.
        block_size: tokens a block of the layers whose KV of a token is larger; where that of the others is a whole part
            of it, their blocks hold as many more.
        budget: most tokens of a prompt in one step.
    """
    full = model.kv_layers - model.window_layers
    size = group_layers(full, model.window_layers)
    wide, windowed_wide = _values(model, tp, windowed=False), _values(model, tp, windowed=True)
    block, windowed_block = block_size, block_size
    if full and wide > windowed_wide and wide % windowed_wide == 0:
        windowed_block *= int(wide / windowed_wide)
    elif full and windowed_wide % wide == 0:
        block *= int(windowed_wide / wide)
    most = -(-(model.window - 1 + budget) // windowed_block) + 1  # the window may begin within a block
    return KvLayout(
        block, -(-full // size), -(-model.window_layers // size), model.window, windowed_block, most_windowed=most
    )


def group_bytes_per_token(model: Model, tp: int, kv_precision: str) -> float:
    """KV of a token in the layers of one group, on each of `tp` xPUs [bytes]; padded to the larger kind of layer."""
    full = model.kv_layers - model.window_layers
    wide = _values(model, tp, windowed=True)
    if full:
        wide = max(wide, _values(model, tp, windowed=False))
    return group_layers(full, model.window_layers) * wide * BYTES_PER_VALUE[kv_precision]


def _values(model: Model, tp: int, windowed: bool) -> float:
    """Values that each xPU keeps of a token and layer: KV heads are sharded, at least one a xPU."""
    heads = model.window_kv_heads if windowed and model.window_kv_heads else model.kv_heads
    return model.kv_values_per_layer(windowed) * max(1.0 / tp, 1.0 / heads)

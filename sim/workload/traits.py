"""What sets requests apart, drawn from distributions: tenants, priorities, deadlines, adapters, images, thinking.

Each has a random stream of its own, so that none moves the arrivals, the lengths or another's draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import repeat

import numpy as np

from sim.errors import InputError
from sim.qoe import SLOClass
from sim.request import NO_TRAITS, Traits
from sim.rng import Streams
from sim.workload import checks
from sim.workload.adapters import Adapters
from sim.workload.deadlines import Deadlines
from sim.workload.images import KEY, Images
from sim.workload.lengths import FloatArray, IntArray
from sim.workload.privacy import Privacy
from sim.workload.reasoning import Reasoning, visible
from sim.workload.tenants import Priorities, Tenants


@dataclass(slots=True)
class TraitColumns:
    """Traits of `n` requests as columns; None where all have the default. Names and order are those of `Traits`."""

    tenant: IntArray | None = None
    priority: IntArray | None = None
    deadline_s: FloatArray | None = None
    adapter: IntArray | None = None
    images: IntArray | None = None
    image_tokens: IntArray | None = None
    private: IntArray | None = None
    reasoning_tokens: IntArray | None = None

    def rows(self) -> list[Traits] | None:
        """One row a request, or None where nothing is set."""
        columns = [getattr(self, name) for name in Traits._fields]
        if all(column is None for column in columns):
            return None
        cells = (repeat(d) if c is None else c.tolist() for c, d in zip(columns, NO_TRAITS))
        return list(map(Traits, *cells))

    def take(self, chosen: IntArray | slice) -> TraitColumns:
        """The columns of the chosen requests."""
        cells = (getattr(self, each.name) for each in fields(self))
        return TraitColumns(*(None if column is None else column[chosen] for column in cells))

    @staticmethod
    def join(parts: Sequence[TraitColumns]) -> TraitColumns:
        """Columns below each other; all parts have the same ones."""
        names = [each.name for each in fields(parts[0]) if getattr(parts[0], each.name) is not None]
        return TraitColumns(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


class TraitModel:
    """The distributions of one workload; each may be None, an object, or a mapping of its arguments.

    Args:
        classes: the workload's SLO classes.
        tenants, priorities, deadlines, adapters, images, privacy, reasoning: what to draw; see the classes of these
            names.
        added: where `images` does not say, whether image tokens come on top of prompts.
        own: traits that the requests bring themselves, as those of a trace do.
    """

    def __init__(
        self,
        classes: Sequence[SLOClass],
        tenants: object = None,
        priorities: object = None,
        deadlines: object = None,
        adapters: object = None,
        images: object = None,
        added: bool = True,
        own: Sequence[str] = (),
        privacy: object = None,
        reasoning: object = None,
    ) -> None:
        self.tenants = checks.optional("workload.tenants", tenants, Tenants)
        self.priorities = checks.optional("workload.priorities", priorities, Priorities)
        self.deadlines = checks.optional("workload.deadlines", deadlines, Deadlines)
        self.adapters = checks.optional("workload.adapters", adapters, Adapters)
        self.images = checks.optional("workload.images", images, Images)
        self.privacy = checks.optional("workload.privacy", privacy, Privacy)
        self.reasoning = checks.optional("workload.reasoning", reasoning, Reasoning)
        given = {
            "tenant": ("tenants", tenants),
            "priority": ("priorities", priorities),
            "deadline_s": ("deadlines", deadlines),
            "adapter": ("adapters", adapters),
            "private": ("privacy", privacy),
            "reasoning_tokens": ("reasoning", reasoning),
        }
        for trait, (key, value) in given.items():
            if value is not None and trait in own:
                raise InputError(f"workload.{key}", value, f"null, as the trace has a column for it (columns.{trait})")
        if self.deadlines is not None:
            self.deadlines.bind(classes)
        self._check_priorities(classes, own)
        if self.images is not None:
            self._check_images(self.images, images, own)
            added = added if self.images.added is None else self.images.added
        self.added = added
        self.active = any(value is not None for _, value in (*given.values(), ("images", images))) or bool(own)

    def start(self, streams: Streams) -> TraitDraws:
        """Begin to draw."""
        return TraitDraws(self, streams)

    def _check_priorities(self, classes: Sequence[SLOClass], own: Sequence[str]) -> None:
        if self.priorities is None or self.priorities.by == "request":
            return
        key, levels = "workload.priorities", self.priorities.levels
        count = len(classes) if self.priorities.by == "class" else None
        if self.priorities.by == "tenant" and "tenant" not in own:
            if self.tenants is None:
                raise InputError(f"{key}.by", "tenant", "request | class, unless workload.tenants is given")
            count = self.tenants.count
        if count is not None and len(levels) != count:
            noun = "an SLO class" if self.priorities.by == "class" else "a tenant"
            raise InputError(f"{key}.levels", levels.tolist(), f"{count} level(s), one {noun}")

    @staticmethod
    def _check_images(images: Images, value: object, own: Sequence[str]) -> None:
        counted = "images" in own or "image_tokens" in own
        if counted and images.drawn:
            raise InputError(KEY, value, "no share and no counts, as the trace has a column for its images")
        if "image_tokens" in own and images.tokens is not None:
            raise InputError(f"{KEY}.tokens", images.tokens, "null, as the trace has a column for image tokens")
        if "image_tokens" not in own and images.tokens is None:
            raise InputError(f"{KEY}.tokens", None, "tokens an image: a whole number, or a distribution of lengths")


class TraitDraws:
    """The traits of one run's requests, drawn in order. Drawing n and then m gives the same as n + m at once."""

    def __init__(self, model: TraitModel, streams: Streams) -> None:
        self._model = model
        names = ("tenants", "priorities", "deadlines", "adapters", "images", "image tokens")
        self._privacy = streams.get("privacy")
        self._tenants, self._priorities, self._deadlines, self._adapters, self._images, self._tokens = (
            streams.get(name) for name in names
        )
        self._reasoning = streams.get("reasoning")

    def senders(self, columns: TraitColumns, slo_class: IntArray) -> None:
        """Set what a conversation keeps from turn to turn: tenant, priority, adapter and privacy."""
        model, n = self._model, len(slo_class)
        if model.tenants is not None:
            columns.tenant = model.tenants.draw(self._tenants, n)
        if model.priorities is not None:
            columns.priority = model.priorities.draw(self._priorities, slo_class, columns.tenant)
        if model.adapters is not None:
            columns.adapter = model.adapters.draw(self._adapters, n)
        if model.privacy is not None:
            columns.private = model.privacy.draw(self._privacy, n)

    def images(self, columns: TraitColumns, prompt: IntArray) -> IntArray:
        """Set images and their tokens; returns the lengths of prompts with them."""
        model = self._model
        if columns.images is None and columns.image_tokens is None:
            if model.images is None:
                return prompt
            columns.images = model.images.draw(self._images, len(prompt))
        if columns.images is None:
            assert columns.image_tokens is not None
            columns.images = (columns.image_tokens > 0).astype(np.int64)
        if columns.image_tokens is None:
            if model.images is None:
                return prompt
            columns.image_tokens = model.images.draw_tokens(self._tokens, columns.images)
        if model.added and model.images is not None:
            return prompt + columns.image_tokens
        columns.image_tokens = np.minimum(columns.image_tokens, prompt)
        return prompt

    def reasoning(self, columns: TraitColumns, output: IntArray) -> IntArray:
        """Set hidden tokens; returns the lengths of outputs with them. One token is left to be seen."""
        model = self._model.reasoning
        if model is not None:
            columns.reasoning_tokens = model.draw(self._reasoning, len(output))
            if model.added:
                return output + columns.reasoning_tokens
        if columns.reasoning_tokens is not None:
            columns.reasoning_tokens = visible(columns.reasoning_tokens, output)
        return output

    def deadlines(self, columns: TraitColumns, slo_class: IntArray, output: IntArray) -> None:
        """Set deadlines."""
        if self._model.deadlines is not None:
            columns.deadline_s = self._model.deadlines.draw(self._deadlines, slo_class, output)

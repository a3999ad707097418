"""How much of a workload's prompts a prefix cache could serve."""

from __future__ import annotations

from sim.rng import Streams
from sim.workload.base import Workload


def infinite_cache_share(workload: Workload, seed: int = 0) -> float:
    """Share of all prompt tokens that a cache without limits finds, every earlier prompt being in it.

    A prompt whose first k units occurred in earlier prompts hits min(unit * k, prompt) tokens; that an engine has to
    compute a prompt's last token in any case is not considered. 0 for a workload that names no prefixes.
    """
    unit = getattr(workload, "prefix_unit", 0)
    seen: set[int] = set()
    hits = tokens = 0
    for batch in workload.batches(Streams(seed)):
        for prompt, hashes in zip(batch.prompt_tokens.tolist(), batch.hashes or ()):
            known = 0
            for name in hashes:
                if name not in seen:
                    break
                known += 1
            seen.update(hashes)
            hits += min(unit * known, prompt)
        tokens += int(batch.prompt_tokens.sum())
    return hits / tokens if tokens else 0.0

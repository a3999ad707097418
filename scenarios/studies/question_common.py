"""What the questions about LLM services share: how each is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from analysis.study import Chart, Claim, Table


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question found."""

    claims: list[Claim]
    tables: list[Table]
    charts: list[Chart]


@dataclass(frozen=True, slots=True)
class Common:
    """What all questions share: the seed, processes side by side, and the user's own folders."""

    seed: int
    processes: int
    search: tuple[Path, ...]

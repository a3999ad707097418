"""The front end of a pool as a configuration names it."""

from __future__ import annotations

import pytest

from sim.errors import InputError
from tests.scenarios.test_build import built

KEYS = {
    "front_end_s": 0.01,
    "tokenize_s": 0.002,
    "tokenize_s_per_token": 1e-6,
    "front_end_workers": 2,
    "detokenize_s": 1e-5,
}


def test_every_key_reaches_the_engine() -> None:
    engine = (
        built("fleet=single", *(f"++fleet.engine.{key}={value}" for key, value in KEYS.items())).fleet.pools[0].engine
    )
    assert {key: getattr(engine, key) for key in KEYS} == KEYS


def test_by_default_there_is_none() -> None:
    engine = built("fleet=single").fleet.pools[0].engine
    assert [getattr(engine, key) for key in KEYS] == [0.0, 0.0, 0.0, 1, 0.0]


@pytest.mark.parametrize(("key", "value"), [*((key, -1) for key in KEYS), ("front_end_workers", 0)])
def test_bad_values_are_named(key: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"fleet\.engine\.{key}={value}"):
        built("fleet=single", f"++fleet.engine.{key}={value}")

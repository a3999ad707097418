"""What the tests of the programs share."""

from __future__ import annotations

import pytest

from tests.scenarios.records import Row, simulated_rows


@pytest.fixture
def simulated() -> list[Row]:
    """A record that the simulator itself made; every test may change its own."""
    return [dict(row) for row in simulated_rows()]

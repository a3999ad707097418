"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadlines: tests never judge speed. Where a change has to pass, the same examples every time; elsewhere new ones.
settings.register_profile("exploring", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable" if os.environ.get("CI") else "exploring")

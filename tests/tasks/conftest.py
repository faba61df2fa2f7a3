"""What the tests of tasks share."""

from __future__ import annotations

from hypothesis import settings

# The same examples every time, and no clock: a busy machine is no failure.
settings.register_profile("tasks", deadline=None, derandomize=True, database=None)
settings.load_profile("tasks")

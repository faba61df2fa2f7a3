"""An executor that works packs off where it stands, for tests of what studies find."""

from __future__ import annotations

from collections.abc import Iterator

from peftport.studies.execute import execute
from peftport.studies.work import Event, Finished, Work


class Inline:
    """Takes a pack at a time; see `peftport.studies.work.Executor`."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def warm(self) -> None:
        """Nothing is to be prepared."""

    def free(self) -> int:
        """One pack, when all that happened was fetched."""
        return 0 if self._events else 1

    def submit(self, work: Work) -> None:
        """Work the pack off."""
        self._events += [*execute(work, 1), Finished(work.number)]

    def poll(self, seconds: float) -> Iterator[Event]:
        """What happened since."""
        events, self._events = self._events, []
        yield from events

    def stop(self) -> None:
        """Nothing is running."""

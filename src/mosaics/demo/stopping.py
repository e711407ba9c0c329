"""Stopping a drawing from another request of the same visitor."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopSignals:
    """The drawings under way, by session; all requests without one count as one."""

    def __init__(self):
        self._lock = threading.Lock()
        self._events: dict[str | None, set[threading.Event]] = {}

    @contextmanager
    def running(self, session: str | None) -> Iterator[threading.Event]:
        """For the time of a drawing: the event that is set when its session asks to stop."""
        event = threading.Event()
        with self._lock:
            self._events.setdefault(session, set()).add(event)
        try:
            yield event
        finally:
            with self._lock:
                self._events[session].discard(event)
                if not self._events[session]:
                    del self._events[session]

    def stop(self, session: str | None) -> int:
        """Stops the drawings of a session, and returns how many there were."""
        with self._lock:
            events = list(self._events.get(session, ()))
        for event in events:
            event.set()
        return len(events)

"""Stopping when asked to."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["EXIT_CODE_STOPPED", "StopSignal"]

EXIT_CODE_STOPPED = 75
"""Exit code of a run that saved a checkpoint because of SIGTERM or SIGINT: run the same command to continue.

It is `EX_TEMPFAIL` of sysexits.h. A second signal exits at once, without saving, with 128 + its number.
"""


class StopSignal:
    """While entered, remembers a first SIGTERM or SIGINT for the loop to act upon; a second one exits at once.

    Outside the main thread, where Python cannot handle signals, it does nothing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = signal.Signals(number)

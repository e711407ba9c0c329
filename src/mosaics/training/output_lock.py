"""One run at a time in an output folder."""

import os
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["OutputLock"]


class OutputLock:
    """While entered, no other process can enter the lock of the same folder.

    It is a POSIX record lock: the operating system releases it when the process ends, however it ends, and worker
    processes that outlive a killed run do not inherit it. Where there are no such locks (Windows, some network file
    systems) it does nothing.

    Args:
        folder: The output folder.
        active: Whether this process is the one that takes the lock.
    """

    def __init__(self, folder: Path, active: bool = True):
        self.path, self.active = folder / ".lock", active
        self._descriptor: int | None = None

    def __enter__(self) -> "OutputLock":
        if self.active and fcntl is not None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                self.__exit__(None, None, None)
                raise RuntimeError(
                    f"Another run is writing to {self.path.parent}. Wait for it, stop it, or use another output_dir."
                ) from None
            except OSError:
                pass  # a file system without locks
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

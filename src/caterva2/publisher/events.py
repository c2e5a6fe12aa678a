"""What the system says of changes in directories, as it comes, in batches.

Each directory is watched by itself. A recursive watch of the library would follow symbolic links, also those
that leave the root (one to ``/usr`` took 15,000 watches and 5 s), and miss what happens in new directories
until it has noticed them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection
from enum import IntEnum

import structlog
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

__all__ = ["ChangeKind", "FileEvents"]

DEBOUNCE_MS = 100
STEP_MS = 25
"""Changes are handed over when none came for this long, or after `DEBOUNCE_MS`."""

log = structlog.get_logger(__name__)


class ChangeKind(IntEnum):
    """As `watchfiles.Change`."""

    ADDED = 1
    MODIFIED = 2
    DELETED = 3


Changes = set[tuple[int, str]]
"""``(ChangeKind, absolute path)``."""


class FileEvents:
    """Watches directories.

    Parameters
    ----------
    on_changes : callable
        Called on the event loop with a set of ``(ChangeKind, absolute path)``.
    """

    def __init__(self, on_changes: Callable[[Changes], None]) -> None:
        self._on_changes = on_changes
        self._thread: _Thread | None = None
        self._said = False

    @property
    def working(self) -> bool:
        """Whether changes are seen at all; false also before the first `watch`."""
        return self._thread is not None

    async def watch(self, directories: Collection[str]) -> None:
        """Watch directories, and no others. What changes once this returns is seen.

        If the system refuses (no more watches, no support), this is said once, and `working` is false.
        """
        loop = asyncio.get_running_loop()
        old, self._thread = self._thread, None
        try:
            notifier = await asyncio.to_thread(
                RustNotify, sorted(directories), False, False, 300, False, True
            )
        except (OSError, WatchfilesRustInternalError) as error:
            if not self._said:
                log.warning("no file events", directories=len(directories), reason=str(error))
                self._said = True
        else:
            self._thread = _Thread(notifier, lambda changes: _call(loop, self._on_changes, changes))
            self._thread.start()
        if old is not None:
            old.stop()

    def close(self) -> None:
        """Watch nothing any more."""
        if self._thread is not None:
            self._thread.stop()
            self._thread.join()
            self._thread = None


class _Thread(threading.Thread):
    """Waits for changes until it is stopped."""

    def __init__(self, notifier: RustNotify, hand_over: Callable[[Changes], None]) -> None:
        super().__init__(name="caterva2-events", daemon=True)
        self._notifier = notifier
        self._hand_over = hand_over
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        with self._notifier as notifier:
            while not self._stopped.is_set():
                changes = notifier.watch(DEBOUNCE_MS, STEP_MS, 60_000, self._stopped)
                if isinstance(changes, set):
                    self._hand_over(changes)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[Changes], None], changes: Changes) -> None:
    try:
        loop.call_soon_threadsafe(function, changes)
    except RuntimeError:
        if not loop.is_closed():
            raise

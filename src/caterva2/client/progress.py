"""Bars for what takes long: in a terminal, or below the cell of a notebook; none in pipes and logs.

A bar appears once something has lasted for `DELAY_S`, and goes away with its end. It is drawn by the thread
that waits for the end alone: notebooks do not know to which cell the output of other threads belongs.
"""

from __future__ import annotations

import html
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

__all__ = ["DELAY_S", "Meter", "bytes_progress"]

DELAY_S = 0.5
"""What is done sooner shows no bar, in seconds."""

REDRAW_S = 0.1
"""Bars are drawn this often at most, in seconds."""


class _Bar(Protocol):
    """A bar on some display."""

    def draw(self, done: int, total: int | None) -> None:
        """Show how many bytes are done, of how many."""
        ...

    def close(self) -> None:
        """Take it away."""
        ...


class Meter:
    """Counts the bytes of something that may take long, and shows them; a context manager.

    Make it in the thread that waits for the end. Others may count, and do not draw.

    Parameters
    ----------
    what : str
    total : int, optional
        How many bytes it will be, where that is known.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._owner = threading.get_ident()
        self._next = time.monotonic() + DELAY_S
        self._bar: _Bar | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, nbytes: int) -> None:
        """Count bytes that are done, or, where they are to be done again, negative ones."""
        with self._lock:
            self._done += nbytes
        if threading.get_ident() == self._owner:
            self.look()

    def move_to(self, done: int, total: int) -> None:
        """Say how many bytes are done, and how many it will be."""
        self._done, self._total = done, total
        self.look()

    def look(self) -> None:
        """Draw it, if it is time to; for its own thread."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + REDRAW_S
        self._bar = self._bar or _bar(self._what)
        if self._bar is None:
            self._next = float("inf")  # there is nowhere to draw it
            return
        self._bar.draw(self._done, self._total)


@contextmanager
def bytes_progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar for what is done while inside, if it takes long.

    Yields
    ------
    callable or None
        What moves it, called with the bytes done, and of how many; None where a bar cannot be shown.
    """
    if not (sys.stderr.isatty() or _kernel() is not None):
        yield None
        return
    with Meter(what) as meter:
        yield meter.move_to


def _bar(what: str) -> _Bar | None:
    if _kernel() is not None:
        return _NotebookBar(what)
    return _TerminalBar(what) if sys.stderr.isatty() else None


def _kernel() -> Any:  # Any: of a library that need not be there
    """Return the kernel of the notebook that this runs in, if it does."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None)


class _TerminalBar:
    """A bar on stderr, by rich."""

    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(what, total=None)
        self._progress.start()

    def draw(self, done: int, total: int | None) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def close(self) -> None:
        self._progress.stop()


class _NotebookBar:
    """A bar below a cell. Rich draws none there without ipywidgets, and browsers have one anyway."""

    def __init__(self, what: str) -> None:
        from IPython.display import display

        self._what = what
        nothing = {"text/html": "", "text/plain": ""}
        self._shown = display(nothing, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def draw(self, done: int, total: int | None) -> None:
        value = "" if not total else f' value="{done}" max="{total}"'
        text = f"{self._what}: {done / 1e6:,.1f}" + (f" of {total / 1e6:,.1f} MB" if total else " MB")
        bar = f"<progress{value}></progress> {html.escape(text)}"
        self._shown.update({"text/html": bar, "text/plain": text}, raw=True)

    def close(self) -> None:
        self._shown.update({"text/html": "", "text/plain": ""}, raw=True)

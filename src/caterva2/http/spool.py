"""Large answers that are made on disk, and wait there for clients that read slowly."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from caterva2.errors import Unavailable
from caterva2.http.bodies import piecewise

__all__ = ["Spool"]

PIECE_BYTES = 1 << 20
"""So much of the file is in memory at a time, in bytes."""

T = TypeVar("T")


class Spool:
    """A temporary file that becomes the body of an answer, in the directory that `tempfile` chooses.

    An async context manager; what `response` returned needs nothing of it any more. Failures of the disk
    are `Unavailable`.

    Attributes
    ----------
    file : Path
        To be written while inside; it does not exist at first.
    """

    file: Path

    async def __aenter__(self) -> Self:
        make = tempfile.TemporaryDirectory
        self._directory = await self.run(make, prefix="caterva2-", ignore_cleanup_errors=True)
        self.file = Path(self._directory.name, "answer")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await run_in_threadpool(self._directory.cleanup)

    async def run(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:  # Any: passed to `work`
        """Run what writes or reads the file, in a thread.

        Raises
        ------
        Unavailable
            If it raises OSError.
        """
        try:
            return await run_in_threadpool(work, *args, **kwargs)
        except OSError as error:
            where = tempfile.gettempdir()
            raise Unavailable(f"an answer of this size cannot be prepared in {where}: {error}") from error

    async def write(self, parts: Iterable[bytes | memoryview]) -> None:
        """Write the file.

        Raises
        ------
        Unavailable
        """

        def write() -> None:
            with self.file.open("wb") as file:
                file.writelines(parts)

        await self.run(write)

    async def response(self, headers: dict[str, str], media_type: str) -> Response:
        """Answer with what is in the file.

        Raises
        ------
        Unavailable
        """
        file: IO[bytes] = await self.run(self.file.open, "rb", buffering=0)
        try:
            return await piecewise(self._body(file), os.fstat(file.fileno()).st_size, headers, media_type)
        except BaseException:
            file.close()
            raise

    async def _body(self, file: IO[bytes]) -> AsyncGenerator[bytes]:
        with file:
            while piece := await self.run(file.read, PIECE_BYTES):
                yield piece

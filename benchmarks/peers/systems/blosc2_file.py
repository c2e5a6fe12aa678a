"""The ``.b2nd`` file itself: on the reader's own disk, and over HTTP with what blosc2 has for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.peers.case import Case
from benchmarks.peers.nginx import serve_directory
from benchmarks.peers.services import Services
from benchmarks.peers.system import Read, System

__all__ = ["FileOverHttp", "LocalFile", "write_b2nd"]


def write_b2nd(values: Any, case: Case, target: Path) -> None:
    """Write ``a.b2nd`` into a directory: zstd-5 with shuffle."""
    import blosc2

    parameters = {"codec": blosc2.Codec.ZSTD, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE]}
    array = blosc2.empty(
        case.shape,
        dtype=values.dtype,
        chunks=case.chunks,
        blocks=case.blocks,
        urlpath=str(target / "a.b2nd"),
        mode="w",
        cparams=parameters,
    )
    for x in range(0, case.shape[0], case.chunks[0]):
        array[x : x + case.chunks[0]] = values[x : x + case.chunks[0]]


class LocalFile(System):
    """No network at all."""

    name = "local"
    title = "the local file, blosc2"
    environment = "blosc2"
    dataset = "b2nd"
    kind = "copy"
    package = "blosc2"

    def open(self, address: str, case: Case, scratch: Path) -> Read:
        """Open the file."""
        import blosc2

        return blosc2.open(address, mode="r").__getitem__  # type: ignore[no-any-return]

    def serve(self, services: Services, data: Path) -> int:
        """Start nothing."""
        return 0

    def address(self, port: int, data: Path) -> str:
        """Return the path of the file."""
        return str(data / "a.b2nd")


class FileOverHttp(System):
    """``blosc2.open("http://…")``, without a cache: with its default one, of 256 MiB, it is a local copy."""

    name = "blosc2-http"
    title = "blosc2.open(http), nginx"
    environment = "blosc2"
    dataset = "b2nd"
    package = "blosc2"

    def open(self, address: str, case: Case, scratch: Path) -> Read:
        """Open the URL."""
        import blosc2

        return blosc2.open(address, lazy=True, cache_policy=blosc2.CachePolicy.NONE).__getitem__  # type: ignore[no-any-return]

    def serve(self, services: Services, data: Path) -> int:
        """Start nginx."""
        return serve_directory(services, data)

    def address(self, port: int, data: Path) -> str:
        """Return the URL of the file."""
        return f"http://127.0.0.1:{port}/a.b2nd"

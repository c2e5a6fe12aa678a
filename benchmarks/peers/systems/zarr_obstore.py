"""zarr-python with obstore behind nginx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.peers.case import Case
from benchmarks.peers.nginx import serve_directory
from benchmarks.peers.services import Services
from benchmarks.peers.system import Read, System


class ZarrObstore(System):
    """The same kind of store as TensorStore's plain one, written by zarr-python."""

    name = "zarr-obstore"
    title = "zarr-python + obstore, nginx"
    environment = "zarr"
    dataset = "zarr-python"
    package = "zarr"

    def prepare(self, values: Any, case: Case, target: Path) -> None:
        """Write the store."""
        import zarr
        from zarr.codecs import BloscCodec

        codec = BloscCodec(cname="zstd", clevel=5, shuffle="shuffle", typesize=4)
        array = zarr.create_array(
            target / "a.zarr", shape=case.shape, dtype=values.dtype, chunks=case.chunks, compressors=codec
        )
        for x in range(0, case.shape[0], case.chunks[0]):
            array[x : x + case.chunks[0]] = values[x : x + case.chunks[0]]

    def open(self, address: str, case: Case, scratch: Path) -> Read:
        """Open the store."""
        import zarr
        from obstore.store import HTTPStore
        from zarr.storage import ObjectStore

        store = ObjectStore(
            HTTPStore(f"{address}/a.zarr", client_options={"allow_http": True}), read_only=True
        )
        return zarr.open_array(store, mode="r").__getitem__  # type: ignore[no-any-return]

    def serve(self, services: Services, data: Path) -> int:
        """Start nginx."""
        return serve_directory(services, data)

    def address(self, port: int, data: Path) -> str:
        """Return the URL of nginx."""
        return f"http://127.0.0.1:{port}"

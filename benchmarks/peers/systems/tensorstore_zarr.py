"""TensorStore on Zarr 3 behind nginx: a store of chunks, and one of shards that hold our blocks as chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers.case import DTYPE, Case
from benchmarks.peers.nginx import serve_directory
from benchmarks.peers.services import Services
from benchmarks.peers.system import Read, System

__all__ = ["TensorStorePlain", "TensorStoreSharded", "codecs"]


def codecs() -> list[dict[str, Any]]:
    """Return how chunks are compressed: as those of the other systems."""
    blosc = {"cname": "zstd", "clevel": 5, "shuffle": "shuffle", "typesize": 4, "blocksize": 0}
    return [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "blosc", "configuration": blosc},
    ]


class TensorStorePlain(System):
    """One object for each chunk."""

    name = "tensorstore"
    title = "TensorStore, Zarr 3, nginx"
    environment = "tensorstore"
    dataset = "zarr-plain"
    package = "tensorstore"
    sharded: ClassVar[bool] = False

    def prepare(self, values: Any, case: Case, target: Path) -> None:
        """Write the store."""
        import tensorstore

        inner = {"chunk_shape": case.blocks, "codecs": codecs()}
        sharding = {"name": "sharding_indexed", "configuration": inner}
        objects = case.shards if self.sharded else case.chunks
        metadata = {
            "shape": case.shape,
            "data_type": "float32",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": objects}},
            "codecs": [sharding] if self.sharded else codecs(),
        }
        kvstore = {"driver": "file", "path": f"{target}/a.zarr/"}
        spec = {"driver": "zarr3", "kvstore": kvstore, "metadata": metadata, "create": True}
        store = tensorstore.open(spec).result()
        for x in range(0, case.shape[0], case.chunks[0]):
            store[x : x + case.chunks[0]].write(values[x : x + case.chunks[0]].astype(DTYPE)).result()

    def open(self, address: str, case: Case, scratch: Path) -> Read:
        """Open the store as its documentation does: no data is cached."""
        import tensorstore

        kvstore = {"driver": "http", "base_url": address, "path": "/a.zarr/"}
        store = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True, open=True).result()
        return lambda key: store[key].read().result()

    def serve(self, services: Services, data: Path) -> int:
        """Start nginx."""
        return serve_directory(services, data)

    def address(self, port: int, data: Path) -> str:
        """Return the URL of nginx."""
        return f"http://127.0.0.1:{port}"


class TensorStoreSharded(TensorStorePlain):
    """Shards of many chunks, each of which is as large as one of our blocks."""

    name = "tensorstore-sharded"
    title = "TensorStore, Zarr 3 sharded, nginx"
    dataset = "zarr-sharded"
    sharded = True

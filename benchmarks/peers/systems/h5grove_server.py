"""h5grove, the server behind H5Web: slices of HDF5, uncompressed, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.peers.case import DTYPE, Case, Key
from benchmarks.peers.services import REPOSITORY, Services, free_port
from benchmarks.peers.system import Read, System


class H5grove(System):
    """Its FastAPI service under uvicorn, read with ``format=bin`` as H5Web does."""

    name = "h5grove"
    title = "h5grove (Blosc-zstd through hdf5plugin)"
    environment = "h5grove"
    dataset = "hdf5"
    package = "h5grove"

    def prepare(self, values: Any, case: Case, target: Path) -> None:
        """Write an HDF5 file whose chunks are compressed as those of the other systems."""
        import h5py
        import hdf5plugin

        blosc = hdf5plugin.Blosc(cname="zstd", clevel=5, shuffle=hdf5plugin.Blosc.SHUFFLE)
        with h5py.File(target / "a.h5", "w") as file:
            file.create_dataset("a", data=values, chunks=case.chunks, **blosc)

    def open(self, address: str, case: Case, scratch: Path) -> Read:
        """Make a session of requests."""
        import numpy as np
        import requests

        session = requests.Session()
        session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=16))

        def read(key: Key) -> Any:
            selection = ",".join(f"{p.start}:{p.stop}" if isinstance(p, slice) else str(p) for p in key)
            query = {"file": "a.h5", "path": "/a", "format": "bin", "selection": selection}
            answer = session.get(f"{address}/data", params=query)
            answer.raise_for_status()
            shape = [part.stop - part.start for part in key if isinstance(part, slice)]
            return np.frombuffer(answer.content, DTYPE).reshape(shape)

        return read

    def serve(self, services: Services, data: Path) -> int:
        """Start uvicorn."""
        port = free_port()
        app = "benchmarks.peers.systems.h5grove_app:app"
        command: list[str | Path] = [services.python, "-m", "uvicorn", app, "--log-level", "warning"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        environment = {"base_dir": str(data), "PYTHONPATH": str(REPOSITORY)}
        return services.start("h5grove", command, environment).wait_for_port(port)

    def address(self, port: int, data: Path) -> str:
        """Return the URL of the service."""
        return f"http://127.0.0.1:{port}"

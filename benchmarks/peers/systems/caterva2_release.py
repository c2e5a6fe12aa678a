"""The release of Caterva2 on PyPI: its server with its own client, and with ``blosc2.Proxy``."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks.peers.case import Case
from benchmarks.peers.services import Services, free_port
from benchmarks.peers.system import Read, System

TIMEOUT_S = 600


class Release(System):
    """The server and its client."""

    name = "caterva2-release"
    title = "Caterva2 on PyPI, its client"
    environment = "caterva2"
    dataset = "b2nd"
    package = "caterva2"

    def open(self, address: str, case: Case, scratch: Path) -> Read:
        """Open the array by its path."""
        import caterva2

        return caterva2.Client(address, timeout=TIMEOUT_S).get("@public/a.b2nd").__getitem__  # type: ignore[call-arg,no-any-return,attr-defined]

    def serve(self, services: Services, data: Path) -> int:
        """Start the server without users, with the file in its public root."""
        public = services.directory / "state" / "public"
        public.mkdir(parents=True)
        shutil.copyfile(data / "a.b2nd", public / "a.b2nd")  # a link would be a change for our publisher
        port = free_port()
        configuration = services.directory / "caterva2.toml"
        configuration.write_text(
            f'[server]\nlogin = false\nregister = false\nurlbase = "http://127.0.0.1:{port}"\n'
        )
        command: list[str | Path] = [services.python.parent / "cat2-server", "--conf", configuration]
        command += ["--listen", f"127.0.0.1:{port}", "--statedir", public.parent]
        return services.start("cat2-server", command, {"PYTHONPATH": ""}).wait_for_port(port)

    def address(self, port: int, data: Path) -> str:
        """Return the URL of the server."""
        return f"http://127.0.0.1:{port}"


class WarmProxy(Release):
    """``blosc2.Proxy``: chunks that were read once are in a file of the reader's own."""

    name = "blosc2-proxy"
    title = "Caterva2 on PyPI, warm blosc2.Proxy"
    kind = "copy"
    package = "blosc2"
    caches = True

    def open(self, address: str, case: Case, scratch: Path) -> Read:
        """Make a proxy with an empty file."""
        import blosc2

        source = blosc2.C2Array("@public/a.b2nd", urlbase=address)
        return blosc2.Proxy(source, urlpath=str(scratch / "proxy.b2nd"), mode="w").__getitem__  # type: ignore[no-any-return]

"""What a system is to the harness: one class, of which each module of `systems` has one or more.

The class is used on both sides. The orchestrator calls `serve` and its kin; a runner, in the environment of
the system, calls `prepare` and `open`, which therefore import the libraries of the peer inside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from benchmarks.peers.case import Case, Key

if TYPE_CHECKING:
    from benchmarks.peers.services import Services

    from caterva2.testing.network import Link, Network

__all__ = ["Read", "System"]

Read = Callable[[Key], Any]
"""Reads a part of the array and returns it as numpy does."""


class System:
    """A way to read a remote array.

    Attributes
    ----------
    name : str
        As in ``--only`` and in the results.
    title : str
        As in the table.
    environment : str
        Name of the file in ``requirements/`` that says what it needs; empty for this interpreter.
    dataset : str
        The file or directory that `prepare` writes, below the directory of data; systems may share one.
    kind : str
        ``ours``; ``variant``, ours configured otherwise; ``peer``; or ``copy``, if it reads in the end from
        its own disk.
    package : str
        The package whose version stands for it.
    caches : bool
        Whether a second read of the same place moves nothing, so that a cold one needs a new start.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    environment: ClassVar[str] = ""
    dataset: ClassVar[str]
    kind: ClassVar[Literal["ours", "variant", "peer", "copy"]] = "peer"
    package: ClassVar[str]
    caches: ClassVar[bool] = False

    # -- in the environment of the system ---------------------------------------------------------

    def prepare(self, values: Any, case: Case, target: Path) -> None:
        """Write an array (a numpy memmap) in the format of this system."""
        raise NotImplementedError

    def open(self, address: str, case: Case, scratch: Path) -> Read:
        """Open the array; ``scratch`` is an empty directory for caches of the client."""
        raise NotImplementedError

    # -- in the orchestrator ------------------------------------------------------------------------

    def serve(self, services: Services, data: Path) -> int:
        """Start what serves ``data``, the dataset's directory; returns the port that clients connect to."""
        raise NotImplementedError

    def address(self, port: int, data: Path) -> str:
        """Return what `open` is told."""
        raise NotImplementedError

    def serve_far(self, services: Services, data: Path, network: Network, shape: dict[str, float]) -> Link:
        """Start what serves the data at the far end of a slow link, and return the link."""
        return network.link(self.serve(services, data), **shape)

    def visit(self, services: Services, data: Path, link: Link) -> str:
        """Return the address for a reader at the near end, who has seen nothing yet."""
        return self.address(link.port, data)

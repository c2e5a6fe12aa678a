"""Share compressed n-dimensional arrays among hosts by publish-subscribe.

>>> import caterva2
>>> client = caterva2.connect("http://127.0.0.1:8002")  # doctest: +SKIP
>>> client["foo/dir1/ds-2d.b2nd"][0, 10:20]             # doctest: +SKIP

Importing this module is cheap: numpy and Blosc2 are loaded by the first read.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from caterva2.errors import Caterva2Error, Changed

if TYPE_CHECKING:
    from caterva2.client import Array, Client, Directory, File, Frame, Root, connect, open
    from caterva2.client.asynchronous import AsyncClient

__all__ = [
    "Array",
    "AsyncClient",
    "Caterva2Error",
    "Changed",
    "Client",
    "Directory",
    "File",
    "Frame",
    "Root",
    "__version__",
    "connect",
    "open",
]


def __getattr__(name: str) -> Any:  # Any: module attributes of any type
    if name == "__version__":
        from importlib.metadata import version

        return version("caterva2")
    if name == "AsyncClient":  # which needs more than the others
        return import_module("caterva2.client.asynchronous").AsyncClient
    if name in __all__:
        return getattr(import_module("caterva2.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

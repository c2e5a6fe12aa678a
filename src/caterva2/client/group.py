"""Roots, and directories in them: mappings of datasets by name."""

from __future__ import annotations

import builtins
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from caterva2.client.completion import Completion
from caterva2.client.listing import names_below, rows_below
from caterva2.client.notebook import group_html
from caterva2.client.records import RootInfo, Row
from caterva2.client.tree import MAX_NODES, Tree, grow
from caterva2.errors import InvalidPath, NotFound

if TYPE_CHECKING:
    from caterva2.client.client import Client

__all__ = ["Directory", "Group", "Root"]


class Group(Mapping[str, Any]):
    """What datasets have in common whose paths begin alike: the mapping of them by the rest of it.

    Names are flat: ``dir1/x.b2nd``. ``group["dir1"]`` is a `Directory` of its own.

    Attributes
    ----------
    path : str
        ``root`` or ``root/dir``.
    """

    def __init__(self, client: Client, path: str) -> None:
        self._client = client
        self._completion = Completion(lambda: names_below(client._transport, path))
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:  # Any: as pickle has it
        return type(self), (self._client, self.path)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __dask_tokenize__(self) -> str:
        """Return another token each time: what is below may have changed since the last one."""
        return uuid4().hex

    @property
    def name(self) -> str:
        """Last part of its path."""
        return self.path.rpartition("/")[2]

    def __getitem__(self, name: str) -> Any:  # Any: a Directory, an Array, a Frame or a File
        """Open a dataset, or a directory: one request, two for a directory.

        Raises
        ------
        NotFound, InvalidPath, Unavailable
        """
        return self._client[f"{self.path}/{name}"]

    def __iter__(self) -> Iterator[str]:
        return iter([row.path.removeprefix(f"{self.path}/") for row in self.list()])

    def __len__(self) -> int:
        return len(self.list())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """Open a dataset or a directory; a default if there is none."""
        try:
            return self[name]
        except (NotFound, InvalidPath):
            return default

    def list(self) -> list[Row]:
        """Return its datasets, sorted by path.

        Raises
        ------
        NotFound, Unavailable, Unauthorized
        """
        return self._client.list(self.path)

    def tree(self, level: int | None = None, max_nodes: int = MAX_NODES) -> Tree:
        """Return its datasets as a tree, which shows itself: text where it is printed, a list in a notebook.

        Parameters
        ----------
        level : int, optional
            How deep it goes; all the way by default.
        max_nodes : int
            Most datasets that are looked at.

        Raises
        ------
        NotFound, Unavailable, Unauthorized
        """
        return grow(self.path, [("", "", rows_below(self._client._transport, self.path))], level, max_nodes)

    def _ipython_key_completions_(self) -> builtins.list[str]:
        return self._completion.names()


class Root(Group):
    """A root, and the mapping of its datasets by their names below it.

    Attributes
    ----------
    path : str
        Its name.
    info : RootInfo
        What was said of it when it was asked for.
    """

    def __init__(self, client: Client, info: RootInfo) -> None:
        super().__init__(client, info.name)
        self.info = info

    def __reduce__(self) -> tuple[Any, ...]:  # Any: as pickle has it
        return type(self), (self._client, self.info)

    def __repr__(self) -> str:
        return f"<Root {self.name}: {self.info.datasets} datasets, {self.info.state}>"

    def _repr_html_(self) -> str:
        return group_html(f"Root {self.name}", self.path, self.info)


class Directory(Group):
    """A directory in a root, and the mapping of the datasets below it."""

    def __repr__(self) -> str:
        return f"<Directory {self.path}>"

    def _repr_html_(self) -> str:
        return group_html(f"Directory {self.name}", self.path, None)

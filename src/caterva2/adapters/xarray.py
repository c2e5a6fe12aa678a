"""xarray reads arrays and directories: ``xarray.open_dataset("caterva2://host/foo", engine="caterva2")``.

Opening moves metadata, and the coordinates that xarray makes indexes of; a slice moves what it touches.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar

import xarray
from xarray.backends import BackendEntrypoint
from xarray.backends.store import StoreBackendEntrypoint

import caterva2
from caterva2.adapters.directories import SUFFIX, arrays_below, open_arrays, stem
from caterva2.adapters.xarray_variables import ArrayStore
from caterva2.client import Array, Client, Directory, Root, parse_location
from caterva2.errors import InvalidPath, NotFound, Unsupported

__all__ = ["Caterva2Backend"]


class Caterva2Backend(BackendEntrypoint):
    """What xarray calls for ``engine="caterva2"``."""

    description = "Open arrays and directories of a Caterva2 subscriber"
    url = "https://github.com/Blosc/Caterva2"
    supports_groups = True
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj",
        "mask_and_scale",
        "decode_times",
        "concat_characters",
        "decode_coords",
        "drop_variables",
        "use_cftime",
        "decode_timedelta",
        "token",
        "token_file",
        "timeout_s",
    )

    def guess_can_open(self, filename_or_obj: Any) -> bool:  # Any: whatever xarray was given
        """Return whether this can only be ours: an URL of an array, or of our scheme. Nothing is asked."""
        if isinstance(filename_or_obj, Array | Directory | Root):
            return True
        try:
            where = parse_location(filename_or_obj) if isinstance(filename_or_obj, str) else None
        except InvalidPath:
            return False
        if where is None:
            return False
        ours = filename_or_obj.startswith(("caterva2:", "caterva2s:"))
        return ours or (where.subscriber is not None and where.path.endswith(SUFFIX))

    def open_dataset(
        self,
        filename_or_obj: Any,  # Any: a URL, or what `caterva2.open` returned
        *,
        drop_variables: str | Iterable[str] | None = None,
        token: str | None = None,
        token_file: str | None = None,
        timeout_s: float | None = None,
        **decoding: Any,  # Any: the options of `xarray.open_dataset` for decoding
    ) -> xarray.Dataset:
        """Return an array, or the arrays of a root or a directory, as variables.

        Parameters
        ----------
        filename_or_obj : str, Array, Directory or Root
            What `caterva2.open` takes or returns.
        drop_variables : str or iterable of str, optional
            Variables to leave out: nothing is asked about them.
        token, token_file, timeout_s
            As `caterva2.open` has them. Tokens are not pickled: other processes use what is configured there.
        **decoding
            As `xarray.open_dataset` has them.

        Raises
        ------
        Unsupported
            If it is a file or a frame, or all roots.
        NotFound
            If there is nothing, or no array in the directory itself.
        InvalidPath, Changed, Unavailable, Unauthorized, ConfigError
        """
        found, dropped = _open(filename_or_obj, token, token_file, timeout_s), _names(drop_variables)
        if isinstance(found, Array):
            return _decoded({stem(found.path): found}, dropped, decoding)
        groups = arrays_below(found)
        if "/" not in groups:
            inner = f": open {min(groups)[1:]!r} in it, or use open_datatree" if groups else ""
            raise NotFound(found.path, f"there is no array in {found.path!r} itself{inner}")
        return _decoded(open_arrays(found, groups["/"], dropped), dropped, decoding)

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,  # Any: as above
        *,
        drop_variables: str | Iterable[str] | None = None,
        token: str | None = None,
        token_file: str | None = None,
        timeout_s: float | None = None,
        **decoding: Any,  # Any: as above
    ) -> dict[str, xarray.Dataset]:
        """Return the arrays of a root or a directory, and of all directories below, as a dataset for each.

        Parameters and errors are those of `open_dataset`.

        Returns
        -------
        dict of str to Dataset
            ``/``, ``/dir1``, ``/dir1/dir2`` ... The name of a dimension stands for one length in a directory
            and all those below.
        """
        found = _open(filename_or_obj, token, token_file, timeout_s)
        if isinstance(found, Array):
            raise Unsupported(f"{found.path!r} is an array: open it with open_dataset")
        dropped, datasets = _names(drop_variables), dict[str, xarray.Dataset]()
        for group, names in sorted(({"/": list[str]()} | arrays_below(found)).items()):
            around = [datasets[str(path)] for path in PurePosixPath(group).parents if str(path) in datasets]
            outer = ChainMap(*(dict(dataset.sizes) for dataset in around))
            datasets[group] = _decoded(open_arrays(found, names, dropped), dropped, decoding, outer)
        return datasets

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xarray.DataTree:  # Any: as above
        """Return what `open_groups_as_dict` does, as a tree."""
        return xarray.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **options))


def _open(
    given: Any, token: str | None, token_file: str | None, timeout_s: float | None
) -> Array | Directory | Root:
    found = given
    if isinstance(given, str):
        found = caterva2.open(given, token=token, token_file=token_file, timeout_s=timeout_s)
    if isinstance(found, Array | Directory | Root):
        return found
    if isinstance(found, Client):
        raise Unsupported(f"{found.subscriber} has several roots: name one, as in caterva2://host/root")
    raise Unsupported(f"{found!r} is not an array, a directory or a root")


def _names(dropped: str | Iterable[str] | None) -> frozenset[str]:
    return frozenset([dropped] if isinstance(dropped, str) else dropped or ())


def _decoded(
    arrays: dict[str, Array],
    dropped: frozenset[str],
    decoding: dict[str, Any],
    outer: Mapping[Any, int] | None = None,  # Any: what xarray calls dimensions, which are texts here
) -> xarray.Dataset:
    store = ArrayStore(arrays, outer)
    return StoreBackendEntrypoint().open_dataset(store, drop_variables=dropped, **decoding)

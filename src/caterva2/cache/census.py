"""What the extents of a presence map stand for, by the manifest that the index has of the version."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from caterva2.cache.index import Index
from caterva2.cache.spans import Spans
from caterva2.errors import Corrupt
from caterva2.model.extents import FIXED_SLOTS
from caterva2.model.manifest import Head
from caterva2.model.page import Page
from caterva2.model.slots import first_slot, slot_offsets, slot_sizes

__all__ = ["all_spans", "count_extents", "present_bytes", "stored_manifest"]


def stored_manifest(
    index: Index, version: int, numbers: npt.NDArray[np.int64] | None = None
) -> tuple[Head | None, list[Page]]:
    """Return what an index has of a version's manifest, as far as it is sound.

    Parameters
    ----------
    index : Index
    version : int
        Its id.
    numbers : ndarray of int64, optional
        Only the pages of these extents, ascending.

    Returns
    -------
    head : Head or None
    pages : list of Page
        Those that are here and sound.

    Raises
    ------
    sqlite3.Error
        If the index cannot be read.
    """
    encoded = index.head(version)
    if encoded is None:
        return None, []
    try:
        head = Head.decode(encoded)
    except Corrupt:
        return None, []
    pages = []
    for number in index.page_numbers(version) if numbers is None else _pages_of(head, numbers):
        blob = index.page(version, number)
        if blob is not None:
            with contextlib.suppress(Corrupt):
                pages.append(Page.decode(blob, head, number))
    return head, pages


def _pages_of(head: Head, numbers: npt.NDArray[np.int64]) -> Iterable[int]:
    chunks = np.unique((numbers[numbers >= FIXED_SLOTS] - FIXED_SLOTS) // head.slots_per_chunk)
    return head.pages_of(chunks.tolist()) if len(chunks) else ()


def present_bytes(
    head: Head, pages: Iterable[Page], numbers: npt.NDArray[np.int64]
) -> tuple[int, npt.NDArray[np.int64]]:
    """Return the bytes of the extents present.

    Parameters
    ----------
    head : Head
    pages : iterable of Page
        Those that are known.
    numbers : ndarray of int64
        Extent numbers, ascending.

    Returns
    -------
    nbytes : int
    unknown : ndarray of int64
        The numbers that no page given knows.
    """
    sizes = {extent.number: extent.size for extent in head.fixed}
    in_chunks = int(np.searchsorted(numbers, FIXED_SLOTS))
    nbytes = sum(sizes.get(int(number), 0) for number in numbers[:in_chunks])
    unknown = np.ones(len(numbers), bool)
    unknown[:in_chunks] = False
    for page in pages:
        sizes_of_page = slot_sizes(page)
        begin = first_slot(page)
        first, stop = (int(n) for n in np.searchsorted(numbers, [begin, begin + len(sizes_of_page)]))
        unknown[first:stop] = False
        nbytes += int(sizes_of_page[numbers[first:stop] - begin].sum())
    return nbytes, numbers[unknown]


def count_extents(head: Head, pages: Iterable[Page]) -> int:
    """Return how many extents of a version are not empty; `pages` must be all of them."""
    return len(head.fixed) + sum(int(np.count_nonzero(slot_sizes(page))) for page in pages)


def all_spans(head: Head, pages: Iterable[Page]) -> Spans:
    """Return where the extents of some pages are, and the fixed ones.

    Parameters
    ----------
    head : Head
    pages : iterable of Page
        Ascending.
    """
    fixed = sorted(head.fixed, key=lambda extent: extent.number)
    numbers = [np.array([extent.number for extent in fixed], np.int64)]
    offsets = [np.array([extent.offset for extent in fixed], np.int64)]
    sizes = [np.array([extent.size for extent in fixed], np.int64)]
    for page in pages:
        sizes_of_page = slot_sizes(page)
        slots = np.flatnonzero(sizes_of_page)
        numbers.append(first_slot(page) + slots)
        offsets.append(slot_offsets(page)[slots])
        sizes.append(sizes_of_page[slots])
    return Spans(np.concatenate(numbers), np.concatenate(offsets), np.concatenate(sizes))

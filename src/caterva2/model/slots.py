"""The extents of a page of a manifest as columns: one row for each extent number, of all its chunks.

Rows are in the order of the numbers, from that of the page's first chunk: ``slots_per_chunk`` for each chunk.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from caterva2.model.extents import DIGEST_BYTES, FIXED_SLOTS, ChunkKind
from caterva2.model.page import Page

__all__ = ["first_slot", "slot_digests", "slot_offsets", "slot_sizes"]


def first_slot(page: Page) -> int:
    """Return the extent number of the first row."""
    return FIXED_SLOTS + page.first * page.slots_per_chunk


def slot_offsets(page: Page) -> npt.NDArray[np.int64]:
    """Return where the extent of each number is, in bytes; meaningless where there is no such extent.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    slots = np.zeros((len(page), page.slots_per_chunk), np.int64)
    slots[:, 0] = page.offsets
    slots[:, 1] = page.offsets + page.sizes
    if page.slots_per_chunk > 2:
        has_blocks = page.kinds == ChunkKind.BLOCKS
        slots[has_blocks, 2:] = page.offsets[has_blocks, None] + page.block_starts
    return slots.ravel()


def slot_sizes(page: Page) -> npt.NDArray[np.int64]:
    """Return the size of the extent of each number, in bytes; 0 where there is no such extent.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    slots = np.zeros((len(page), page.slots_per_chunk), np.int64)
    slots[:, 0] = np.where(page.preambles > 0, page.preambles, page.sizes)
    slots[:, 1] = page.slacks
    if page.slots_per_chunk > 2:
        slots[page.kinds == ChunkKind.BLOCKS, 2:] = page.block_sizes
    return slots.ravel()


def slot_digests(page: Page) -> npt.NDArray[np.uint8]:
    """Return the digest of the extent of each number; zeros where there is no such extent.

    Returns
    -------
    ndarray of uint8, shape (n, DIGEST_BYTES)
    """
    slots = np.zeros((len(page), page.slots_per_chunk, DIGEST_BYTES), np.uint8)
    slots[:, 0] = page.digests
    slots[:, 1] = page.slack_digests
    if page.slots_per_chunk > 2:
        slots[page.kinds == ChunkKind.BLOCKS, 2:] = page.block_digests
    return slots.reshape(-1, DIGEST_BYTES)

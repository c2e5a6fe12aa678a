"""What the origin says of a version, so that others can plan and verify: a head and pages.

The *head* is small and names the version; *pages* say, each for a run of chunks (some 32 MB of file), where
every chunk, its preamble and its blocks are, and what their digests are. A file that is no Blosc2 frame is
described in the same way, as a run of chunks of 256 KiB.

The encoded form, on the wire and on disk, is *sealed*: `DIGEST_BYTES` of BLAKE3 over all that follows, then
MessagePack. All data is checked against manifests, and a manifest against its seal: a bit that flips in it,
in transit or on a disk, is found. The head is here, pages are in `caterva2.model.page`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.errors import Corrupt
from caterva2.model.extents import FIXED_SLOTS, Extent, Fixed
from caterva2.model.path import DatasetPath, Kind, parse_path
from caterva2.model.sealed import pack, seal, unseal, view

__all__ = ["Head"]


@dataclass(frozen=True)
class Head:
    """A version of a dataset: its name, its geometry and its fixed parts.

    Attributes
    ----------
    path : DatasetPath
    etag : str
        Strong name of the version, without quotes.
    generation : int
    kind : Kind
        ``file`` also for a frame that cannot be parsed; `meta` then has ``error``.
    size : int
        Size of the file, in bytes.
    mtime_ns : int
        Time of last modification, in nanoseconds since the epoch.
    header : bytes
        The frame's header, as stored; empty for files.
    fixed : tuple of Extent
        Those of `Fixed` that are not empty.
    nchunks : int
    slots_per_chunk : int
        Extent numbers that each chunk takes: blocks per chunk and 2.
    page_starts : ndarray of int64, shape (npages,)
        First chunk of each page.
    meta : dict
        What ``/api/info`` says of the version: JSON values only.
    """

    path: DatasetPath
    etag: str
    generation: int
    kind: Kind
    size: int
    mtime_ns: int
    header: bytes = field(repr=False)
    fixed: tuple[Extent, ...] = field(repr=False)
    nchunks: int
    slots_per_chunk: int
    page_starts: npt.NDArray[np.int64] = field(repr=False)
    meta: dict[str, Any] = field(repr=False)

    @cached_property
    def _starts(self) -> list[int]:
        """`page_starts` for who looks for a few chunks: an array takes longer to be asked."""
        found: list[int] = self.page_starts.tolist()
        return found

    @property
    def npages(self) -> int:
        """Number of pages."""
        return len(self.page_starts)

    @property
    def nextents(self) -> int:
        """Number of extent numbers, those of extents that are empty included."""
        return FIXED_SLOTS + self.nchunks * self.slots_per_chunk

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of an array; None for other kinds."""
        return tuple(self.meta["shape"]) if self.kind == "array" else None

    def fixed_extent(self, part: Fixed) -> Extent | None:
        """Return a fixed part; None where it is empty."""
        return next((extent for extent in self.fixed if extent.number == part), None)

    def page_of(self, nchunk: int) -> int:
        """Return the number of the page that describes a chunk."""
        return bisect_right(self._starts, nchunk) - 1

    def pages_of(self, nchunks: Iterable[int]) -> list[int]:
        """Return the numbers of the pages that describe some chunks, ascending."""
        if not isinstance(nchunks, np.ndarray):
            return sorted({bisect_right(self._starts, nchunk) - 1 for nchunk in nchunks})
        numbers = nchunks
        return [int(n) for n in np.unique(np.searchsorted(self.page_starts, numbers, side="right") - 1)]

    def page_chunks(self, number: int) -> range:
        """Return the chunks that a page describes."""
        stop = int(self.page_starts[number + 1]) if number + 1 < self.npages else self.nchunks
        return range(int(self.page_starts[number]), stop)

    def check_pages(self, numbers: Collection[int]) -> None:
        """Return if there are pages of all these numbers.

        Raises
        ------
        IndexError
        """
        if numbers and not 0 <= min(numbers) <= max(numbers) < self.npages:
            raise IndexError(
                f"{self.path} has pages 0 to {self.npages - 1}, asked for {sorted(set(numbers))}"
            )

    def named(self, etag: str, generation: int) -> Head:
        """Return the same under another name."""
        return Head(  # much faster than `dataclasses.replace`: each version that is taken is named
            self.path,
            etag,
            generation,
            self.kind,
            self.size,
            self.mtime_ns,
            self.header,
            self.fixed,
            self.nchunks,
            self.slots_per_chunk,
            self.page_starts,
            self.meta,
        )

    def encode(self) -> bytes:
        """Return the encoded form, sealed."""
        return seal(
            {
                "path": str(self.path),
                "etag": self.etag,
                "generation": self.generation,
                "kind": self.kind,
                "size": self.size,
                "mtime_ns": self.mtime_ns,
                "header": self.header,
                "fixed": [[e.number, e.offset, e.size, e.digest] for e in self.fixed],
                "nchunks": self.nchunks,
                "slots_per_chunk": self.slots_per_chunk,
                "page_starts": pack(self.page_starts, "<i8"),
                "meta": self.meta,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Head:
        """Parse the encoded form.

        Raises
        ------
        Corrupt
            If its seal is broken, it is not a head, or it contradicts itself.
        """
        try:
            raw = unseal(data)
            head = cls(
                path=parse_path(raw["path"]),
                etag=raw["etag"],
                generation=raw["generation"],
                kind=raw["kind"],
                size=raw["size"],
                mtime_ns=raw["mtime_ns"],
                header=raw["header"],
                fixed=tuple(Extent(*row) for row in raw["fixed"]),
                nchunks=raw["nchunks"],
                slots_per_chunk=raw["slots_per_chunk"],
                page_starts=view(raw["page_starts"], "<i8"),
                meta=raw["meta"],
            )
            starts = head.page_starts
            sound = (
                (not head.nchunks) == (not len(starts))
                and (not len(starts) or starts[0] == 0)
                and bool(np.all(np.diff(starts) > 0))
                and (not len(starts) or starts[-1] < head.nchunks)
                and all(0 <= e.offset and 0 < e.size and e.stop <= head.size for e in head.fixed)
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise Corrupt(f"not the head of a manifest: {error!r}") from error
        if not sound:
            raise Corrupt(f"the head of {head.path} contradicts itself")
        return head

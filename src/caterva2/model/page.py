"""The pages of a manifest: where each chunk of a run is in the file, and what the digests of its parts are.

Arrays travel as little-endian bytes. Of a page whose chunks have no dead bytes behind them, or no blocks, the
columns that would say so travel empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from caterva2.errors import Corrupt
from caterva2.model.extents import DIGEST_BYTES, FIXED_SLOTS, ChunkKind, Extent, digest
from caterva2.model.manifest import Head
from caterva2.model.sealed import pack, seal, unseal, view

__all__ = ["Page"]

_KINDS = tuple(ChunkKind)


@dataclass(frozen=True)
class Page:
    """What the origin says of a run of chunks.

    Attributes
    ----------
    number : int
    first : int
        Number of its first chunk; the arrays have one row for each chunk from there.
    kinds : ndarray of uint8, shape (n,)
        `ChunkKind`.
    offsets : ndarray of int64, shape (n,)
        Where the chunk is in the file, in bytes; -1 where it has no bytes.
    sizes : ndarray of int64, shape (n,)
        Its compressed size, in bytes, slack excluded; 0 where it has no bytes.
    slacks : ndarray of int64, shape (n,)
        Dead bytes between the chunk and the next part of the file.
    digests : ndarray of uint8, shape (n, DIGEST_BYTES)
        Of the whole chunk, or of the preamble of a chunk of `ChunkKind.BLOCKS`.
    slack_digests : ndarray of uint8, shape (n, DIGEST_BYTES)
        Zeros where there is no slack.
    preambles : ndarray of int32, shape (n,)
        Size of the preamble, in bytes; 0 for other kinds than `ChunkKind.BLOCKS`.
    block_starts : ndarray of int32, shape (m, nblocks)
        Where each block begins within its chunk, in bytes; one row for each chunk of `ChunkKind.BLOCKS`.
    block_digests : ndarray of uint8, shape (m, nblocks, DIGEST_BYTES)
    slots_per_chunk : int
        As in the head: ``nblocks + 2``.
    """

    number: int
    first: int
    kinds: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    slacks: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint8]
    slack_digests: npt.NDArray[np.uint8]
    preambles: npt.NDArray[np.int32]
    block_starts: npt.NDArray[np.int32]
    block_digests: npt.NDArray[np.uint8]
    slots_per_chunk: int

    def __len__(self) -> int:
        return len(self.kinds)

    @cached_property
    def _block_rows(self) -> npt.NDArray[np.int64]:
        """Row of `block_starts` for each chunk; meaningless where it has none."""
        return np.cumsum(self.kinds == ChunkKind.BLOCKS) - 1

    @cached_property
    def _kinds(self) -> bytes:
        """`kinds` for who asks for one: an array takes longer to be asked."""
        return self.kinds.tobytes()

    @cached_property
    def block_sizes(self) -> npt.NDArray[np.int64]:
        """Size of each block in bytes, shape (m, nblocks): it ends where the next greater start is."""
        rows = self.block_starts.astype(np.int64)
        if not rows.size:
            return rows
        stops = self.sizes[self.kinds == ChunkKind.BLOCKS]
        order = np.argsort(rows, axis=1)
        ordered = np.take_along_axis(rows, order, axis=1)
        nexts = np.concatenate([ordered[:, 1:], stops[:, None]], axis=1)
        sizes = np.empty_like(rows)
        np.put_along_axis(sizes, order, nexts - ordered, axis=1)
        return sizes

    def kind(self, nchunk: int) -> ChunkKind:
        """Return how a chunk is stored."""
        return _KINDS[self._kinds[nchunk - self.first]]

    def chunk_head(self, nchunk: int) -> Extent:
        """Return the whole chunk as an extent, or its preamble if it is of `ChunkKind.BLOCKS`."""
        row = nchunk - self.first
        size = self.preambles.item(row) or self.sizes.item(row)
        return Extent(self._number(nchunk), self.offsets.item(row), size, self.digests[row].tobytes())

    def chunk_blocks(self, nchunk: int, blocks: Sequence[int]) -> list[Extent]:
        """Return some blocks of a chunk of `ChunkKind.BLOCKS`."""
        row = nchunk - self.first
        blocks_row = self._block_rows.item(row)
        starts, sizes = self.block_starts[blocks_row], self.block_sizes[blocks_row]
        digests = self.block_digests[blocks_row]
        offset, number = self.offsets.item(row), self._number(nchunk) + 2
        return [
            Extent(number + block, offset + starts.item(block), sizes.item(block), digests[block].tobytes())
            for block in blocks
        ]

    def chunk_slack(self, nchunk: int) -> Extent | None:
        """Return the dead bytes behind a chunk; None where there are none."""
        row = nchunk - self.first
        size = int(self.slacks[row])
        if not size:
            return None
        offset = int(self.offsets[row]) + int(self.sizes[row])
        return Extent(self._number(nchunk) + 1, offset, size, self.slack_digests[row].tobytes())

    def chunk_extents(self, nchunk: int) -> list[Extent]:
        """Return all extents of a chunk in file order; empty for one that has no bytes."""
        kind = self.kind(nchunk)
        if kind > ChunkKind.BLOCKS:
            return []
        extents = [self.chunk_head(nchunk)]
        if kind == ChunkKind.BLOCKS:
            extents += self.chunk_blocks(nchunk, range(self.slots_per_chunk - 2))
            extents.sort(key=lambda extent: extent.offset)
        slack = self.chunk_slack(nchunk)
        return [*extents, slack] if slack else extents

    def extents(self) -> Iterator[Extent]:
        """Yield all extents of all chunks of the page."""
        for nchunk in range(self.first, self.first + len(self)):
            yield from self.chunk_extents(nchunk)

    def _number(self, nchunk: int) -> int:
        return FIXED_SLOTS + nchunk * self.slots_per_chunk

    def encode(self) -> bytes:
        """Return the encoded form, sealed."""
        return seal(
            {
                "number": self.number,
                "first": self.first,
                "slots_per_chunk": self.slots_per_chunk,
                **{name: self._packed(name, dtype) for name, dtype, _ in _COLUMNS},
            }
        )

    def _packed(self, name: str, dtype: str) -> bytes:
        column = getattr(self, name)
        return b"" if name in _OFTEN_ZERO and not column.any() else pack(column, dtype)

    @cached_property
    def content(self) -> bytes:
        """Digest of all that it says of its chunks, but for their numbers and for where in the file they are.

        Of the same chunks of another version it is the same if nothing of them changed.
        """
        columns = [self._packed(name, dtype) for name, dtype, _ in _COLUMNS if name != "offsets"]
        return digest(b"%d,%d;" % (len(self), self.slots_per_chunk) + b"".join(columns))

    def encode_unchanged(self) -> bytes:
        """Return the encoded form for who knows a page of the same `content`: where the chunks are, sealed.

        Of chunks that follow each other in the file, as most do, it has the offset of the first one only.
        """
        stored = self.kinds <= ChunkKind.BLOCKS
        offsets = self.offsets[stored]
        if len(offsets) and np.array_equal(offsets, _following(offsets[0], self._lengths[stored])):
            offsets = offsets[:1]
        return seal(
            {
                "number": self.number,
                "first": self.first,
                "unchanged": self.content,
                "offsets": pack(offsets, "<i8"),
            }
        )

    @property
    def _lengths(self) -> npt.NDArray[np.int64]:
        """Bytes of file that each chunk takes, slack included."""
        return self.sizes + self.slacks

    def _moved(self, raw: dict[str, Any]) -> Page:
        """Return the page of another version of the same `content`, given what `encode_unchanged` sent."""
        if raw["unchanged"] != self.content:
            raise ValueError("unchanged from another page than the one known")
        stored = self.kinds <= ChunkKind.BLOCKS
        offsets = self.offsets.copy()
        sent = view(raw["offsets"], "<i8")
        lengths = self._lengths[stored]
        offsets[stored] = _following(sent[0], lengths) if len(sent) == 1 else sent
        return replace(self, number=raw["number"], first=raw["first"], offsets=offsets)

    @classmethod
    def decode(cls, data: bytes, head: Head, number: int, known: Page | None = None) -> Page:
        """Parse the encoded form of a page of a version, of which the number is known.

        Parameters
        ----------
        data : bytes
        head : Head
        number : int
        known : Page, optional
            The page of another version of which the `content` was sent along with the request: the answer
            may be that nothing of it changed.

        Raises
        ------
        Corrupt
            If its seal is broken, it is not that page, or it contradicts itself or the head.
        """
        try:
            raw = unseal(data)
            if known is not None and "unchanged" in raw:
                page = known._moved(raw)
                page._check(head, number)
                return page
            nblocks = raw["slots_per_chunk"] - 2
            columns = {
                name: view(raw[name], dtype).reshape([-1 if n is None else n or nblocks for n in shape])
                for name, dtype, shape in _COLUMNS
                if nblocks or not name.startswith("block")
            }
            if not nblocks:
                columns["block_starts"] = np.empty((0, 0), np.int32)
                columns["block_digests"] = np.empty((0, 0, DIGEST_BYTES), np.uint8)
            count = len(columns["kinds"])
            for name in _OFTEN_ZERO:
                if count and not len(columns[name]):  # a view of one zero: it takes no memory
                    columns[name] = np.broadcast_to(
                        columns[name].dtype.type(), (count, *columns[name].shape[1:])
                    )
            page = cls(number=raw["number"], first=raw["first"], slots_per_chunk=nblocks + 2, **columns)
            page._check(head, number)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Corrupt(f"not page {number} of the manifest of {head.path}: {error!r}") from error
        return page

    def _check(self, head: Head, number: int) -> None:
        chunks = head.page_chunks(number)
        stored = self.kinds <= ChunkKind.BLOCKS
        stops = self.offsets + self.sizes + self.slacks
        rows: list[npt.NDArray[Any]] = [
            self.kinds,
            self.offsets,
            self.sizes,
            self.slacks,
            self.digests,
            self.slack_digests,
            self.preambles,
        ]
        has_blocks = self.kinds == ChunkKind.BLOCKS
        checks = {
            "number": self.number == number,
            "chunks": (chunks.start, len(chunks)) == (self.first, len(self)),
            "rows": all(len(row) == len(self) for row in rows),
            "slots": self.slots_per_chunk == head.slots_per_chunk,
            "kinds": bool(np.all(self.kinds <= ChunkKind.UNINIT)),
            "offsets": bool(np.all(self.offsets[stored] >= 0) and np.all(stops[stored] <= head.size)),
            "sizes": bool(np.all(self.sizes[stored] > 0) and np.all(self.slacks >= 0)),
            "blocks": len(self.block_starts) == len(self.block_digests) == int(has_blocks.sum()),
            "preambles": bool(np.all((self.preambles > 0) == has_blocks)),
        }
        if all(checks.values()) and has_blocks.any():
            preambles = self.preambles[has_blocks, None]
            checks["starts"] = bool(np.all(self.block_starts >= preambles) and np.all(self.block_sizes > 0))
        wrong = [name for name, sound in checks.items() if not sound]
        if wrong:
            raise ValueError(f"contradictory {', '.join(wrong)}")


def _following(first: np.int64, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where parts of some lengths begin that lie one behind the other."""
    return first + np.cumsum(lengths) - lengths


# name, dtype, shape (None: as many as there are, 0: blocks per chunk)
_COLUMNS: tuple[tuple[str, str, tuple[int | None, ...]], ...] = (
    ("kinds", "u1", (None,)),
    ("offsets", "<i8", (None,)),
    ("sizes", "<i8", (None,)),
    ("slacks", "<i8", (None,)),
    ("digests", "u1", (None, DIGEST_BYTES)),
    ("slack_digests", "u1", (None, DIGEST_BYTES)),
    ("preambles", "<i4", (None,)),
    ("block_starts", "<i4", (None, 0)),
    ("block_digests", "u1", (None, 0, DIGEST_BYTES)),
)

_OFTEN_ZERO = frozenset({"slacks", "slack_digests", "preambles"})

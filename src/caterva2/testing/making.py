"""Slices made of any `Source`, as a publisher makes them: for tests of whoever asks for them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from caterva2.frame.made import chunk_of_array
from caterva2.model.manifest import Head
from caterva2.model.selection import Selection
from caterva2.source.link import Link
from caterva2.source.maker import MadeSlice, parts_of
from caterva2.source.protocol import Source
from caterva2.source.slices import Reader

__all__ = ["FarMaker", "make_part", "make_slice"]

LIMIT_BYTES = 1 << 30


async def make_part(source: Source, head: Head, selection: Selection) -> bytes:
    """Return a part of an array as a chunk, made of what a source has of it."""
    with ThreadPoolExecutor(1) as executor:
        array = await Reader(source, executor, limit_bytes=LIMIT_BYTES).array(head, selection)
    return chunk_of_array(head, array, level=1)


async def make_slice(source: Source, head: Head, selection: Selection) -> MadeSlice:
    """Return a part of an array, made of what a source has of it."""
    parts = parts_of(head, selection)
    return MadeSlice(selection, [(part, await make_part(source, head, part.selection)) for part in parts])


@dataclass
class FarMaker:
    """A `caterva2.source.maker.SliceMaker` that is far away, as far as its link says.

    Attributes
    ----------
    source : Source
    link : Link
    made : list of Selection
        What was asked for.
    gate : asyncio.Event
        `make` waits until it is set.
    failures : list of Exception
        `make` raises them, first the first.
    """

    source: Source
    link: Link = field(default_factory=Link)
    name: str = "http://far.example"
    made: list[Selection] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[Exception] = field(default_factory=list)
    round_trip_s: float = 0.05

    def __post_init__(self) -> None:
        self.gate.set()
        self.link.answered(self.round_trip_s)

    async def make(self, head: Head, selection: Selection) -> MadeSlice:
        """Return a part of an array; see `SliceMaker.make`."""
        self.made.append(selection)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        return await make_slice(self.source, head, selection)

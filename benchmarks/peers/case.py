"""What is read: the array, the kinds of reads, and the keys, which are the same for all systems.

Runners import this in environments that have little more than numpy.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import prod

__all__ = ["CASES", "DTYPE", "KINDS", "Case", "Key"]

Key = tuple[int | slice, ...]
"""An integer or a slice for each dimension."""

DTYPE = "<f4"

KINDS = ("element", "ten", "plane-x", "plane-y", "plane-z", "cube", "whole")
"""The kinds of reads: ``ten`` is a cube with an edge of 10, ``plane-x`` has one index of the first axis."""


@dataclass(frozen=True)
class Case:
    """An array of three dimensions, and the reads of it.

    Parameters
    ----------
    name : str
    shape, chunks, blocks : tuple of int
        What is compressed and moved in one piece is a chunk where a format has one size, and a block where it
        has two. Blocks are fixed, for Blosc2 would choose them by the caches of the processor.
    shards : tuple of int
        What one object of a sharded store holds: of some sizes that were tried that with which its reader was
        quickest; with shards as small as chunks planes took twice as long.
    cube : int
        Edge of the large cube that is read.
    """

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]
    shards: tuple[int, ...]
    cube: int

    def key(self, kind: str, seed: int) -> Key:
        """Return where a read is, the same for the same seed; cubes are where chunks do not begin."""
        at = random.Random(f"{kind} {seed}")
        if kind == "whole":
            return tuple(slice(0, length) for length in self.shape)
        if kind == "element":
            return tuple(at.randrange(length) for length in self.shape)
        if kind.startswith("plane-"):
            axis = "xyz".index(kind[-1])
            plane: list[int | slice] = [slice(0, length) for length in self.shape]
            plane[axis] = at.randrange(self.shape[axis])
            return tuple(plane)
        edge = 10 if kind == "ten" else self.cube
        starts = [at.randrange(length - edge + 1) for length in self.shape]
        if kind == "cube":  # an aligned one would be a stroke of luck
            starts = [min(start | 1, length - edge) for start, length in zip(starts, self.shape, strict=True)]
        return tuple(slice(start, start + edge) for start in starts)

    def nbytes(self, kind: str) -> int:
        """Return how large an answer is, in bytes."""
        key = self.key(kind, 0)
        return 4 * prod(part.stop - part.start for part in key if isinstance(part, slice))


CASES = {
    "full": Case("full", (512, 512, 1024), (64, 64, 128), (4, 64, 128), (64, 256, 512), 256),
    "small": Case("small", (128, 128, 256), (64, 64, 128), (4, 64, 128), (64, 128, 256), 64),
}

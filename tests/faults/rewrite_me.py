"""Rewrites an array in a loop, with a number that grows added to its elements, until its stdin ends.

Arguments: the file, ``rename`` or ``in-place``, ``plain``, ``noise`` or ``half``, and the longest pause in
seconds. Prints the number of each version when it is written, and for how long nothing was written meanwhile
at most: a publisher may take a file that its writer left alone for longer than it waits, whatever is in it.
"""

import os
import random
import select
import sys
import time
from pathlib import Path

import blosc2
import numpy as np

SHAPE, CHUNKS, BLOCKS = (48, 64, 64), (12, 32, 32), (4, 16, 32)


def elements(kind: str, number: int) -> np.ndarray:
    """Return a version: a constant; what hardly compresses; that, of which the second half never changes."""
    moved = SHAPE[0] // 2 if kind == "half" else SHAPE[0]
    if kind == "plain":
        array = np.zeros(SHAPE, np.uint32)
    else:
        array = np.random.default_rng(7).integers(0, 1 << 30, SHAPE, np.uint32)
    array[:moved] += np.uint32(number)
    return array


def write(file: Path, array: np.ndarray) -> None:
    """Write an array anew, and give it its name when it is complete."""
    temporary = file.parent.parent / f"next {file.name}"
    blosc2.asarray(array, chunks=CHUNKS, blocks=BLOCKS, urlpath=str(temporary), mode="w")
    temporary.replace(file)


def rewrite(file: Path, array: np.ndarray) -> float:
    """Write an array over the one that is there, a row of chunks at a time; return the longest pause."""
    stored, longest, before = blosc2.open(str(file), mode="a"), 0.0, time.monotonic()
    for start in range(0, SHAPE[0], CHUNKS[0]):
        stored[start : start + CHUNKS[0]] = array[start : start + CHUNKS[0]]
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    return longest


def main(file: Path, way: str, kind: str, pause_s: float) -> None:
    chance = random.Random(file.name)
    number, longest = 0, 0.0
    while True:
        if number == 0 or way == "rename":
            write(file, elements(kind, number))
        else:
            longest = rewrite(file, elements(kind, number))
        print(number, f"{longest:.3f}", flush=True)
        number += 1
        # often shorter than a publisher waits: then there is no version at all for a while
        if select.select([sys.stdin], [], [], chance.uniform(0, pause_s))[0] and not os.read(0, 1):
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))

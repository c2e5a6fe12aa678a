"""What the examples of the documentation read: files of the root ``foo``, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from caterva2.frame.write import write_array
from caterva2.testing.samples import write_example


def write(directory: Path, names: list[str]) -> Path:
    """Write a root: what `write_example` has, and some files by name; return its directory."""
    write_example(directory)
    for name in names:
        FILES[name](directory / name)
    return directory


def _records(file: Path) -> None:
    values = np.array([(1, 2.5), (3, -1.0), (5, 0.25)], dtype=[("a", "<i4"), ("b", "<f8")])
    write_array(file, values)


def _simulation(file: Path) -> None:
    steps = np.arange(20 * 50 * 60, dtype=np.float32).reshape(20, 50, 60)
    write_array(file, steps, chunks=(1, 50, 60), attrs={"units": "K"})


FILES: dict[str, Callable[[Path], object]] = {
    "records.b2nd": _records,
    "simulation.b2nd": _simulation,
}
"""How each file is made that a page may ask for by ``<!-- data: NAME -->``."""

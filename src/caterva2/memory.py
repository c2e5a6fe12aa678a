"""How much memory there is for this process."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["memory_bytes"]

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says what a container may have: cgroups version 2, and 1."""

USUAL_BYTES = 4 * 1024**3
"""What is taken for granted where the system does not say, in bytes."""


def memory_bytes() -> int:
    """Return the memory of the machine or, if that is less, of the container this runs in, in bytes."""
    found = []
    with suppress(AttributeError, OSError, ValueError):  # Windows has no sysconf
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no container, or "max"
            found.append(int(file.read_text()))
    return min((size for size in found if size > 0), default=USUAL_BYTES)

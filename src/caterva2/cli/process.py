"""What a service asks of the system for its process."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys

__all__ = ["allow_many_files", "collect_seldom", "return_memory_soon", "take_turns_often"]

OPEN_FILES = 8192
"""Files and connections that a service may have open; many systems allow 1024 unless asked."""

TURN_S = 0.0005
"""How long a thread may go on while another wants to, in seconds."""

NEW_OBJECTS = 50_000
"""How many new objects make Python look for reference cycles."""

# Of <malloc.h>
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

MMAP_BYTES = 4 * 1024 * 1024
"""Memory of this size is the system's again as soon as it is freed."""

ARENAS = 4
"""Heaps that threads share: each keeps what was freed in it."""


def allow_many_files() -> None:
    """Let this process have as many files and connections open as the system lets it ask for."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def return_memory_soon() -> None:
    """Keep the GNU allocator from holding on to what large answers took; does nothing with another.

    By default it has eight heaps for each core, and raises its threshold to what was freed last: then 8
    clients that read whole arrays leave a process with 300 MiB, of which it uses 170. With these settings it
    has 235, and is no slower.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, MMAP_BYTES)
        libc.mallopt(_M_ARENA_MAX, ARENAS)


def take_turns_often() -> None:
    """Let Python's threads take turns more often: whoever comes back from the system waits for so long.

    A thread that takes new files makes a dozen calls for each; with Python's 5 ms, 100,000 take half as long
    again while the event loop announces them.
    """
    sys.setswitchinterval(TURN_S)


def collect_seldom() -> None:
    """Let Python look for reference cycles less often, and no more among what is there by now: the modules.

    Filling a catalogue makes many objects, which makes it look often, each time at all there are: of the time
    that 100,000 datasets take it was a tenth.
    """
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, *gc.get_threshold()[1:])

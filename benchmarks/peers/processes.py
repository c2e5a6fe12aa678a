"""What the system says of processes: their children, CPU and memory (Linux)."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

__all__ = ["cpu_s", "family", "forget_peak", "peak_bytes"]


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def cpu_s(pids: list[int]) -> float:
    """Return the CPU time that processes have used, in seconds, user and system.

    To the nanosecond: ``/proc/PID/stat`` counts in ticks of 10 ms, too coarse for a few reads.
    """
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += time.clock_gettime_ns(
                (~pid << 3) | 2
            )  # as clock_getcpuclockid(3) makes it: CPUCLOCK_SCHED
    return total / 1e9


def forget_peak(pids: list[int]) -> None:
    """Have the peak of memory begin anew, where the system allows it."""
    for pid in pids:
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pids: list[int]) -> int:
    """Return the sum of the most memory that each process had (VmHWM)."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total

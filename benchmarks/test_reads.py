"""Reads through a warm subscriber beside the same reads of the local file, in one run.

Compare the rows of a group: the ratio holds on any machine, the seconds do not.
"""

from __future__ import annotations

import pytest

READS = {
    "element": (300, 200, 100),
    "cube of 10": (slice(300, 310), slice(200, 210), slice(100, 110)),
    "plane": (300,),
    "64 MB": (slice(0, 64), slice(0, 512), slice(0, 512)),
}


@pytest.mark.parametrize("what", READS)
def test_local_file(benchmark, local, what) -> None:
    benchmark.group = what
    benchmark(local.__getitem__, READS[what])


@pytest.mark.parametrize("what", READS)
def test_warm_subscriber(benchmark, remote, what) -> None:
    benchmark.group = what
    remote[READS[what]]
    benchmark(remote.__getitem__, READS[what])

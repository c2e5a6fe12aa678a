from __future__ import annotations

import numpy as np
import pytest

from caterva2.frame.inspect import describe
from caterva2.frame.pages import make_page
from caterva2.frame.write import write_array
from caterva2.model.path import parse_path
from caterva2.model.slots import first_slot, slot_digests, slot_offsets, slot_sizes


@pytest.mark.parametrize("name", ["a.b2nd", "plain.bin"])
def test_rows_are_the_extents(tmp_path, name):
    file = tmp_path / name
    if name.endswith(".b2nd"):
        values = np.random.default_rng(1).random((600, 300))
        values[200:400] = 0
        write_array(file, values, chunks=(200, 300), blocks=(50, 100))
    else:
        file.write_bytes(np.random.default_rng(2).bytes(600_000))
    data = file.read_bytes()

    def read(offset, size):
        return data[offset : offset + size]

    head = describe(read, path=parse_path(f"foo/{name}"), size=len(data), mtime_ns=0)
    for number in range(head.npages):
        page = make_page(read, head, number)
        extents = {extent.number: extent for extent in page.extents()}
        sizes, offsets, digests = slot_sizes(page), slot_offsets(page), slot_digests(page)
        assert len(sizes) == len(offsets) == len(digests) == len(page) * head.slots_per_chunk
        rows = np.flatnonzero(sizes)
        assert [first_slot(page) + row for row in rows] == sorted(extents)
        for row in rows:
            extent = extents[first_slot(page) + row]
            assert (offsets[row], sizes[row]) == (extent.offset, extent.size)
            assert digests[row].tobytes() == extent.digest

import errno
import os
import random

import pytest

from caterva2.cache import holes


@pytest.fixture
def file(tmp_path):
    data = random.Random(1).randbytes(100_000)
    (tmp_path / "file").write_bytes(data)
    return tmp_path / "file", data


def test_punch(file):
    path, data = file
    if not holes.can_punch(path.parent):
        pytest.skip("no holes in this file system")
    before = path.stat().st_blocks
    fd = os.open(path, os.O_RDWR)
    holes.punch(fd, 5000, 50_000)
    os.close(fd)
    assert path.read_bytes() == data[:5000] + bytes(50_000) + data[55_000:]
    assert path.stat().st_blocks < before


def test_errors(file):
    fd = os.open(file[0], os.O_RDONLY)
    with pytest.raises(OSError):
        holes.punch(fd, 0, 1)
    os.close(fd)


def test_where_there_are_no_holes(file, monkeypatch):
    monkeypatch.setattr(holes, "_fallocate", lambda: None)
    with pytest.raises(OSError) as caught:
        holes.punch(0, 0, 1)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert not holes.can_punch(file[0].parent)


def test_a_disk_that_cannot_be_written_does_not_tell(tmp_path):
    assert holes.can_punch(tmp_path / "nothing")

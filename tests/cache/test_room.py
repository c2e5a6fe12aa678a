from types import SimpleNamespace

from caterva2.cache import room as module
from caterva2.cache.room import Room


def test_more_than_the_quota_never_fits(tmp_path):
    for quota_bytes in (0, 100):
        room = Room(tmp_path, quota_bytes, 0)
        assert room.excess(0, 101) > 0
        assert room.never(101)
    assert room.excess(0, 100) == 0
    assert room.excess(50, 60) == 20


def test_the_file_system_is_asked_seldom(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=1 << 40)
    )
    room = Room(tmp_path, None, 1 << 20)
    for _ in range(1000):
        assert room.excess(0, 1000) == 0
        room.written(1000)
    assert len(asked) == 1
    room.written(module.STAT_BYTES)
    room.excess(0, 1000)
    assert len(asked) == 2

import asyncio
import logging
import sqlite3
import threading

import pytest

from caterva2.cache import disk as module
from caterva2.cache.disk import Disk
from caterva2.cache.version import CacheStats
from caterva2.testing.waiting import until


@pytest.fixture
def stats():
    return CacheStats()


@pytest.fixture
async def disk(tmp_path, executor, stats):
    disk = Disk(tmp_path, executor, stats)
    yield disk
    await disk.close()


def fail(error):
    raise error


class TestHealth:
    @pytest.mark.parametrize("error", [OSError("full"), sqlite3.OperationalError("full")])
    async def test_failures_are_counted_and_logged_once(self, disk, stats, tmp_path, caplog, error):
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                with disk.health.guard():
                    fail(error)
        assert (stats.disk_errors, stats.degraded) == (3, True)
        assert caplog.text.count("cannot be used") == caplog.text.count(str(tmp_path)) == 1

    async def test_other_errors_go_on(self, disk, stats):
        with pytest.raises(KeyError), disk.health.guard():
            fail(KeyError())
        assert not stats.degraded

    async def test_a_failure_begins_the_wait_anew(self, disk, stats, monkeypatch):
        monkeypatch.setattr(module, "RECOVERED_S", 0.05)
        disk.health.failed(OSError())
        disk.health.works()
        disk.health.failed(OSError())
        await asyncio.sleep(0.1)
        assert stats.degraded
        disk.health.works()
        await until(lambda: not stats.degraded)


class TestWork:
    async def test_who_goes_away_does_not_end_it(self, disk):
        go, done = threading.Event(), []

        async def work():
            await disk.run(go.wait, 5)
            done.append(True)

        waiting = asyncio.create_task(disk.whole(work()))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go.set()
        await disk.close()
        assert done == [True]

    async def test_what_nobody_waits_for_is_done_at_the_end_and_may_fail(self, disk, stats):
        done = []
        disk.later(done.append, 1)
        disk.later(fail, OSError("full"))
        await disk.close()
        assert (done, stats.disk_errors) == ([1], 1)

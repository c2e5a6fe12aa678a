import os
import stat
import subprocess
import sys

import pytest

from caterva2.errors import StateInUse
from caterva2.state import StateLock, process_exists

HOLDER = """
import sys, time
from pathlib import Path
from caterva2.state import StateLock
StateLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_second_owner_is_refused_by_pid_until_the_first_lets_go(tmp_path):
    directory = tmp_path / "deep" / "state"
    with StateLock(directory):
        with pytest.raises(StateInUse) as refused:
            StateLock(directory).acquire()
        assert refused.value.pid == os.getpid()
        assert str(directory) in str(refused.value)
    with StateLock(directory):
        pass


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_directory_is_for_its_owner_alone(tmp_path):
    with StateLock(tmp_path / "state"):
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_killed_owner_lets_go(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StateInUse) as refused:
            StateLock(tmp_path).acquire()
        assert refused.value.pid == holder.pid
        assert process_exists(holder.pid)
        holder.kill()
        holder.wait()
    with StateLock(tmp_path) as lock:
        assert lock.fileno is not None
    assert lock.fileno is None


def test_release_twice_is_harmless(tmp_path):
    lock = StateLock(tmp_path)
    lock.acquire()
    lock.release()
    lock.release()
    StateLock(tmp_path).acquire()


@pytest.mark.skipif(os.name == "nt", reason="cannot be known on Windows")
def test_ended_process_does_not_exist():
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        child.wait()
    assert not process_exists(child.pid)
    assert process_exists(os.getpid())


@pytest.mark.skipif(sys.platform != "linux", reason="known from /proc")
def test_killed_process_does_not_exist_before_it_is_waited_for():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not process_exists(child.pid)

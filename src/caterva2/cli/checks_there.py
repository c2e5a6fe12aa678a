"""What ``cat2 doctor`` looks at over the network: the subscriber, and what that knows of the others."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from caterva2.cli.findings import Finding, failed, ok, warning
from caterva2.cli.output import counted, human_bytes
from caterva2.client import protocol
from caterva2.client.protocol import Request
from caterva2.client.records import RootInfo, Row
from caterva2.client.transport import Transport
from caterva2.config import ClientSettings
from caterva2.errors import Caterva2Error, Unauthorized, Unavailable

__all__ = ["check_there"]

SILENCE_S = 5.0
"""How long the other side may be silent, in seconds."""

CLOCKS_S = 2.0
"""Clocks that differ by more are worth a word, in seconds."""

SLOW_S = 1.0
"""A small read that takes longer is worth a word, in seconds."""

PUBLISHERS = 5
"""Most publishers whose clocks are looked at."""

MEND = "mend the address of the subscriber: --subscriber URL, CATERVA2_SUBSCRIBER, or the configuration"
START = "start one: cat2 serve NAME=DIR on this machine, or cat2 subscriber --broker URL"


def check_there(settings: ClientSettings) -> Iterator[Finding]:
    """Yield what is found of the subscriber, as far as it gets."""
    url = settings.subscriber
    cannot = _connects(url)
    if cannot is not None:
        yield cannot
        return
    transport = Transport(url, settings.token, min(SILENCE_S, settings.timeout_s))
    try:
        yield from _service(transport)
    except Caterva2Error as error:
        yield failed("service", str(error), _hint(error))
    finally:
        transport.close()


def _connects(url: str) -> Finding | None:
    """Return what keeps a connection from being made; None where it is made."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return failed("subscriber", f"{host!r} has no address: {error.strerror}", MEND)
    try:
        socket.create_connection((host, port), timeout=SILENCE_S).close()
    except ConnectionRefusedError:
        return failed("subscriber", f"nobody listens at {url}", START)
    except OSError as error:
        why = (
            "it does not answer" if isinstance(error, TimeoutError) else str(error.strerror or error).lower()
        )
        return failed(
            "subscriber", f"cannot reach {url}: {why}", "see whether a firewall is in the way: ping, curl"
        )
    return None


def _hint(error: Caterva2Error) -> str:
    if isinstance(error, Unauthorized):
        return "give the token of the group: --token-file FILE, CATERVA2_TOKEN, or the configuration"
    if isinstance(error, Unavailable):
        return "see its log; if it hangs, restart it"
    return MEND


def _service(transport: Transport) -> Iterator[Finding]:
    began = time.perf_counter()
    reply = transport.call(Request("GET", "/health"))
    yield ok("subscriber", f"{transport.url} answers in {(time.perf_counter() - began) * 1e3:.1f} ms")
    health = _object(protocol.read_json(reply))
    name = str(health.get("service", ""))
    if not name.startswith("Caterva2"):
        yield failed("service", f"{transport.url} is no Caterva2 service", MEND)
        return
    yield _version(name, str(health.get("version", "")))
    yield from _clock("clock", reply.headers.get("Date"))
    if name.endswith("broker"):
        hint = "a broker has no data: give the URL of a subscriber, with --subscriber"
        yield failed("service", f"{transport.url} is a broker", hint)
        return
    yield from _health(health)
    roots = protocol.read_roots(transport.call(protocol.ask_roots()))
    yield from _roots(roots)
    if name.endswith("subscriber"):
        yield from _sources(transport)
        yield from _cache(transport)
    yield from _clocks(roots, transport.url)
    yield from _first_read(transport, roots)


def _version(name: str, theirs: str) -> Finding:
    ours = version("caterva2")
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        return warning("service", f"{name} {theirs}, this is {ours}", "use the same version on all machines")
    return ok("service", f"{name} {theirs}")


def _clock(check: str, date: str | None) -> Iterator[Finding]:
    try:
        ahead_s = parsedate_to_datetime(date or "").timestamp() + 0.5 - time.time()
    except ValueError:
        return
    if abs(ahead_s) > CLOCKS_S:
        side = "ahead of" if ahead_s > 0 else "behind"
        hint = "set the clocks by the network: timedatectl set-ntp true"
        yield warning(check, f"{abs(ahead_s):.0f} s {side} this machine's", hint)
    else:
        yield ok(check, f"within {CLOCKS_S:.0f} s of this machine's")


def _health(health: Mapping[str, Any]) -> Iterator[Finding]:
    if health.get("broker") == "unreachable":
        why = str(health.get("problem") or "it is not there")
        hint = "changes are not seen until it is back; see cat2 bus check, and the log of the subscriber"
        yield failed("broker", f"the service cannot reach its broker or bus: {why}", hint)
    elif "broker" in health:
        yield ok("broker", "the service is connected to it")
    if health.get("refused"):
        refused = ", ".join(sorted(_object(health["refused"])))
        yield failed("roots", f"announcing is refused: {refused}", "another publisher has them: cat2 roots")
    if health.get("loops"):
        loops = ", ".join(map(str, health["loops"]))
        yield warning("roots", f"these come from here: {loops}", "see docs/how-to/tiers.md")


def _roots(roots: list[RootInfo]) -> Iterator[Finding]:
    if not roots:
        yield warning("roots", "nothing is published", "publish a directory: cat2 publisher NAME DIR")
    for root in roots:
        check = f"root {root.name}"
        what = (
            f"{root.state}, {root.freshness}, {counted(root.datasets, 'dataset')}, {human_bytes(root.bytes)}"
        )
        if root.state != "online":
            hint = (
                f"start its publisher ({root.publisher or 'not known'}); what is cached can be read meanwhile"
            )
            yield warning(check, what, hint)
        elif root.freshness != "fresh":
            age = "never" if root.age_s is None else f"{root.age_s:.0f} s ago"
            yield warning(check, f"{what}, confirmed {age}", "see whether the broker runs: cat2 broker")
        elif root.behind:
            behind = counted(root.behind, "dataset")
            hint = "if that is as it should be, start its publisher with --reset"
            yield warning(check, f"{what}; {behind} older at the publisher than what was seen here", hint)
        else:
            yield ok(check, what)


def _sources(transport: Transport) -> Iterator[Finding]:
    found = protocol.read_sources(transport.call(protocol.ask_sources()))
    for source in (source for sources in found.values() for source in sources):
        check = f"source of {source.root}"
        rtt = "" if source.rtt_ms is None else f", {source.rtt_ms:.1f} ms away"
        what = f"{source.url}: {source.state}{rtt}"
        if source.state == "quarantined":
            yield failed(check, what, "it sent what is wrong: look at its disk and at what is between")
        elif source.state != "ok":
            yield warning(
                check, what, "see whether it runs, and can be reached from the subscriber's machine"
            )
        elif source.rejected:
            wrong = counted(source.rejected, "extent")
            yield warning(check, f"{what}; {wrong} were wrong", "look at its disk and at what is between")
        else:
            yield ok(check, what)


def _cache(transport: Transport) -> Iterator[Finding]:
    """Yield how the cache is, by its metrics."""
    text = transport.call(Request("GET", "/metrics")).body.decode(errors="replace")
    found = {
        name.removesuffix("_total"): float(value)
        for name, value in re.findall(r"^caterva2_subscriber_cache_(\w+) ([0-9.e+]+)$", text, re.MULTILINE)
    }
    wrong = int(found.get("rejected", 0) + found.get("damaged", 0))
    errors = int(found.get("disk_errors", 0))
    limit = found.get("used_bytes_limit")
    used = human_bytes(int(found.get("used_bytes", 0))) + (f" of {human_bytes(int(limit))}" if limit else "")
    what = f"{counted(int(found.get('versions', 0)), 'version')}, {used}"
    if found.get("degraded"):
        yield failed("cache", f"{what}; the disk cannot be written", "make room on it, or mend it: df, dmesg")
    elif wrong:
        hint = "they were fetched again; check all of it, and the disk: cat2 cache fsck, smartctl"
        yield warning("cache", f"{what}; {counted(wrong, 'extent')} on disk were damaged", hint)
    elif errors:
        hint = "look at the disk: dmesg, and the log of the subscriber"
        yield warning("cache", f"{what}; reading or writing failed {errors:,} times", hint)
    else:
        yield ok("cache", f"{what}, nothing damaged")


def _clocks(roots: list[RootInfo], own: str) -> Iterator[Finding]:
    """Yield how the clocks of publishers are that can be reached from here; they need not be.

    They are sent no token: that they have nothing to answer says the time as well.
    """
    urls = {root.publisher: root.name for root in roots if root.publisher and root.publisher != own}
    for url, name in list(urls.items())[:PUBLISHERS]:
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        try:
            connection = kind(parts.hostname or "", parts.port, timeout=CLOCKS_S)
            with closing(connection):
                connection.request("HEAD", f"{parts.path}/health")
                date = connection.getresponse().headers["Date"]
        except (OSError, HTTPException, ValueError):
            continue
        yield from _clock(f"clock of {name}", date)


def _first_read(transport: Transport, roots: list[RootInfo]) -> Iterator[Finding]:
    """Yield how long it takes to read the first bytes of a dataset."""
    row = next(filter(None, (_some_dataset(transport, root.name) for root in roots if root.datasets)), None)
    if row is None:
        return
    request = protocol.ask_bytes(row.path, 0, min(64, row.size), row.etag)
    seconds = []
    for _ in range(2):
        took = _timed(lambda: transport.call(request))
        if isinstance(took, Caterva2Error):
            yield failed("first read", f"{row.path}: {took}", "see whether its publisher runs: cat2 roots")
            return
        seconds.append(took)
    first, again = seconds
    what = f"{row.path} in {first * 1e3:.1f} ms, again in {again * 1e3:.1f} ms"
    if first > SLOW_S:
        yield warning(
            "first read", what, "its publisher is far or busy: cat2 sources, cat2 follow to have it here"
        )
    else:
        yield ok("first read", what)


def _some_dataset(transport: Transport, root: str) -> Row | None:
    rows, _ = protocol.read_rows(transport.call(protocol.ask_rows(root)))
    return min((row for row in rows if row.size), key=lambda row: row.size, default=None)


def _timed(call: Callable[[], object]) -> float | Caterva2Error:
    began = time.perf_counter()
    try:
        call()
    except Caterva2Error as error:
        return error
    return time.perf_counter() - began


def _object(value: Any) -> Mapping[str, Any]:  # Any: JSON
    return value if isinstance(value, Mapping) else {}

"""Trying out a bus: whether a service could do on it what its role takes, and what to do if not."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from nats.errors import Error as NatsError
from nats.js import api
from nats.js.errors import NotFoundError, ServiceUnavailableError

from caterva2.bus.address import BusAddress, without_secrets
from caterva2.bus.buckets import ALIVE, BUCKETS, DATA, REQUEST_S, ROOTS, SOURCES, Bucket, config_of
from caterva2.bus.client import BusClient, close, denies, open_client
from caterva2.bus.keys import data_key, root_key
from caterva2.bus.permissions import Role
from caterva2.bus.streams import REPLICAS, VERSION_NEEDED, ensure, stream_info
from caterva2.errors import BusError, ConfigError, Unavailable

__all__ = ["Finding", "check_bus"]

TURNS = 5
"""How many round trips are measured."""

PROBE = "caterva2-check"
"""A name for keys that are tried to be written, where the user gave no root."""

ATTEMPTS = 5
"""How often is tried, `PAUSE_S` apart, what a cluster does not answer: it may be electing a leader."""

PAUSE_S = 1.0

NEVER = 1 << 62
"""A revision that no key has: what is to replace it is refused, and nothing is written."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Attributes
    ----------
    check : str
        What was tried.
    ok : bool
    detail : str
        What was found; if that is wrong, what to do.
    reached : bool
        Whether a server answered at all.
    passing : bool
        Whether it may be better soon: a cluster without a leader does not answer.
    """

    check: str
    ok: bool
    detail: str
    reached: bool = True
    passing: bool = False


async def check_bus(
    address: BusAddress, role: Role, roots: Sequence[str] = (), *, republish: bool = False
) -> AsyncIterator[Finding]:
    """Try out all that a service does, without a trace; but a broker makes the buckets that are missing.

    Parameters
    ----------
    address : BusAddress
    role : {"broker", "publisher", "subscriber"}
    roots : sequence of str
        What a publisher wants to announce; by default any.
    republish : bool
        Whether a subscriber wants to announce itself as a further source.

    Yields
    ------
    Finding
        As it is found. What needs something that is not there is not tried.

    Raises
    ------
    ConfigError
        If the credentials cannot be read.
    """
    clients: list[BusClient] = []
    try:
        for url in address.urls:
            yield await _check_server(url, address, clients)
        if clients:
            async for finding in _check_buckets(clients[0], address, role):
                yield finding
            keys = _keys(roots) if role == "publisher" else [(SOURCES, PROBE)] if republish else []
            # at once: what is denied is not answered
            for finding in await asyncio.gather(*(_check_writing(clients[0], *key) for key in keys)):
                yield finding
    finally:
        for client in clients:
            await close(client)


async def _check_server(url: str, address: BusAddress, clients: list[BusClient]) -> Finding:
    check = f"server {without_secrets(url)}"
    try:
        client = await open_client(url, address)
    except ConfigError:
        raise
    except BusError as error:
        return Finding(check, False, str(error))
    except (NatsError, OSError, TimeoutError, ValueError) as error:
        return Finding(
            check,
            False,
            f"it does not answer ({without_secrets(str(error)) or type(error).__name__}): is it running, and "
            "does a firewall let us through?",
            reached=False,
        )
    clients.append(client)
    version = client.connected_server_version
    found = f"nats-server {version.major}.{version.minor}.{version.patch}"
    if (version.major, version.minor) < VERSION_NEEDED:
        return Finding(check, False, f"{found} is too old: {'.'.join(map(str, VERSION_NEEDED))} is needed")
    secure = "TLS" if client.speaks_tls else "not encrypted"
    return Finding(check, True, f"{found}, {secure}, {1000 * await _round_trip_s(client):.1f} ms")


async def _round_trip_s(client: BusClient) -> float:
    seconds = []
    for _ in range(TURNS):
        began = time.perf_counter()
        await client.flush(timeout=int(REQUEST_S))
        seconds.append(time.perf_counter() - began)
    return median(seconds)


async def _check_buckets(client: BusClient, address: BusAddress, role: Role) -> AsyncIterator[Finding]:
    replicas = address.replicas
    if role == "broker":
        made = await _patiently(partial(_make_buckets, client, replicas))
        if not made.ok:
            yield made
            return
    for bucket in BUCKETS:
        finding = await _patiently(partial(_check_bucket, client, bucket, replicas or REPLICAS))
        yield finding
        if finding.ok:
            yield await _patiently(partial(_check_reading, client, bucket))


async def _patiently(check: Callable[[], Awaitable[Finding]]) -> Finding:
    """Repeat a check for as long as a cluster may take to elect a leader."""
    for _ in range(ATTEMPTS - 1):
        finding = await check()
        if not finding.passing:
            return finding
        await asyncio.sleep(PAUSE_S)
    return await check()


async def _make_buckets(client: BusClient, replicas: int | None) -> Finding:
    try:
        await ensure(client, replicas)
    except (BusError, Unavailable) as error:
        return Finding("buckets", False, str(error), passing=isinstance(error, Unavailable))
    return Finding("buckets", True, "there")


async def _check_bucket(client: BusClient, bucket: str, replicas: int) -> Finding:
    check = f"bucket {bucket}"
    try:
        found = await stream_info(client.jetstream(timeout=REQUEST_S), bucket)
    except NotFoundError:
        return Finding(check, False, "it is missing: a broker makes it, or 'cat2 bus check --role broker'")
    except (NatsError, TimeoutError) as error:
        return _unanswered(check, client, f"$JS.API.STREAM.INFO.KV_{bucket}", error)
    wrong = _differences(found.config, config_of(bucket))
    if wrong:
        return Finding(check, False, f"{'; '.join(wrong)}. Remove it: it will be made anew, and filled")
    return _check_replicas(check, bucket, found, replicas)


def _check_replicas(check: str, bucket: str, found: api.StreamInfo, wanted: int) -> Finding:
    replicas, cluster = found.config.num_replicas or 1, found.cluster
    if cluster is None or not cluster.name:
        return Finding(check, True, "on one server")
    state = f"on {replicas} of the servers, led by {cluster.leader}"
    if replicas < wanted:
        return Finding(check, False, f"{state}: nats stream edit KV_{bucket} --replicas {wanted}")
    behind = [str(peer.name) for peer in cluster.replicas or () if peer.offline or not peer.current]
    if behind:
        return Finding(check, False, f"{state}, but {', '.join(behind)} cannot follow: is it running?")
    return Finding(check, True, state)


def _differences(found: api.StreamConfig, wanted: api.StreamConfig) -> list[str]:
    """Return in what a stream is not as it is made, of what matters to us."""
    names = (
        "subjects",
        "storage",
        "max_age",
        "max_msgs_per_subject",
        "allow_msg_ttl",
        "allow_rollup_hdrs",
        "subject_delete_marker_ttl",
    )
    there, right = ({name: getattr(config, name) or None for name in names} for config in (found, wanted))
    wrong = [name for name in names if there[name] != right[name]]
    return [f"{name} is {there[name]} in place of {right[name]}" for name in wrong]


async def _check_reading(client: BusClient, bucket: str) -> Finding:
    """Make a consumer as a view does, and wait for what the server sends while nothing happens."""
    check, heard = f"read {bucket}", asyncio.Event()
    jetstream, name = client.jetstream(timeout=REQUEST_S), f"view-{secrets.token_hex(8)}"
    filtered = f"$KV.{bucket}.>"

    async def receive(_: object) -> None:
        heard.set()

    try:
        subscription = await client.subscribe(client.new_inbox(), cb=receive)
        await jetstream.add_consumer(
            f"KV_{bucket}",
            name=name,
            filter_subject=filtered,
            deliver_subject=subscription.subject,
            ack_policy=api.AckPolicy.NONE,
            mem_storage=True,
            num_replicas=1,
            idle_heartbeat=0.2,
            inactive_threshold=1.0,
            deliver_policy=api.DeliverPolicy.NEW,
        )
        async with asyncio.timeout(REQUEST_S):
            await heard.wait()
        await subscription.unsubscribe()
    except (NatsError, TimeoutError) as error:
        return _unanswered(check, client, f"$JS.API.CONSUMER.CREATE.KV_{bucket}.{name}.{filtered}", error)
    return Finding(check, True, "permitted")


async def _check_writing(client: BusClient, bucket: str, key: str) -> Finding:
    check, began = f"write {bucket} {key}", time.perf_counter()
    try:
        if bucket in (ROOTS, ALIVE):
            await Bucket(client, bucket).get(key)
        await Bucket(client, bucket).replace(key, b"", NEVER)
    except BusError as error:
        return Finding(check, False, f"{error}: see --permissions")
    return Finding(check, True, f"permitted, {1000 * (time.perf_counter() - began):.1f} ms")


def _keys(roots: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for root in roots or [PROBE]:
        found += [(ROOTS, root_key(root)), (ALIVE, root_key(root)), (DATA, data_key(root, PROBE))]
    return found


def _unanswered(check: str, client: BusClient, subject: str, error: Exception) -> Finding:
    if denies(client, subject):
        return Finding(check, False, f"permission denied for {subject}: see --permissions")
    if isinstance(error, ServiceUnavailableError):
        why = "no JetStream answers: started without -js, or a leaf node that does not pass it on"
        return Finding(check, False, why)
    why = f"no answer ({error or type(error).__name__}): a cluster may be electing a leader, try again"
    return Finding(check, False, why, passing=True)

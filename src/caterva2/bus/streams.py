"""The streams of the buckets: asking for them, and making those that are missing."""

from __future__ import annotations

import asyncio
import contextlib

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from caterva2.bus.buckets import BUCKETS, REQUEST_S, config_of
from caterva2.bus.client import denies
from caterva2.errors import BusError, Caterva2Error, Unavailable

__all__ = ["REPLICAS", "VERSION_NEEDED", "ensure", "stream_info"]

REPLICAS = 3
"""On how many servers of a cluster a bucket is kept: one may be lost."""

ASKED = 4
"""How often a server is asked for a bucket within `REQUEST_S`."""

VERSION_NEEDED = (2, 11)
"""Of nats-server: it has per-message TTL and markers of what expired."""

# Error codes of JetStream
_NO_PEERS = 10005
_MADE_OTHERWISE = 10058
_NOT_CLUSTERED = 10074
_NOT_READY = (10008, 10009)


async def stream_info(jetstream: JetStreamContext, bucket: str) -> api.StreamInfo:
    """Return what the server says of the stream of a bucket.

    Its leader answers. Where there is none, as after the loss of a server, nobody does; so it is asked
    several times, and whoever is elected meanwhile is heard soon.

    Raises
    ------
    NotFoundError
        If there is no such bucket.
    NatsError, TimeoutError
    """
    for _ in range(ASKED - 1):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REQUEST_S / ASKED):
                return await jetstream.stream_info(f"KV_{bucket}")
    async with asyncio.timeout(REQUEST_S / ASKED):
        return await jetstream.stream_info(f"KV_{bucket}")


async def ensure(client: Client, replicas: int | None = None) -> None:
    """Make the buckets that are missing. Those that are there stay as they are (an operator's replicas).

    Parameters
    ----------
    client : Client
    replicas : int, optional
        On how many servers a bucket is kept; by default on `REPLICAS` of a cluster, else on the one there is.

    Raises
    ------
    BusError
        If the server is too old, has no JetStream, or refuses.
    Unavailable
        If it does not answer for now: a cluster that has no leader yet.
    """
    version = client.connected_server_version
    if (version.major, version.minor) < VERSION_NEEDED:
        wanted = ".".join(map(str, VERSION_NEEDED))
        found = f"{version.major}.{version.minor}.{version.patch}"
        raise BusError(f"nats-server {found} is too old: {wanted} or later is needed")
    jetstream = client.jetstream(timeout=REQUEST_S)
    try:
        await asyncio.gather(*(_ensure(jetstream, bucket, replicas) for bucket in BUCKETS))
    except (NatsError, TimeoutError) as error:
        raise _ensure_failed(client, error, replicas or REPLICAS) from error


async def _ensure(jetstream: JetStreamContext, bucket: str, replicas: int | None) -> None:
    try:
        found = await stream_info(jetstream, bucket)
    except NotFoundError:
        await _make(jetstream, bucket, replicas)
        return
    if not found.config.allow_msg_ttl:
        raise BusError(f"bucket {bucket} was made without per-message TTL: delete it, it will be made again")


async def _make(jetstream: JetStreamContext, bucket: str, replicas: int | None) -> None:
    """Make a bucket; somebody else may do the same, perhaps with another number of replicas."""
    try:
        await jetstream.add_stream(config_of(bucket, replicas or REPLICAS))
    except APIError as error:
        if error.err_code == _NOT_CLUSTERED and replicas is None:
            await _make(jetstream, bucket, 1)
        elif error.err_code != _MADE_OTHERWISE:
            raise


def _ensure_failed(client: Client, error: Exception, replicas: int) -> Caterva2Error:
    reason = str(error) or type(error).__name__
    if isinstance(error, ServiceUnavailableError) and error.err_code not in _NOT_READY:
        return BusError("nats-server runs without JetStream, or it is not ready: start it with -js")
    if isinstance(error, APIError) and error.err_code == _NO_PEERS:
        return Unavailable(
            f"cannot make the buckets: the cluster has no room for {replicas} replicas now. Start its other "
            f"servers, or set bus_replicas ({error.description})"
        )
    if any(denies(client, f"$JS.API.STREAM.CREATE.KV_{bucket}") for bucket in BUCKETS):
        return BusError(
            "the buckets are missing, and this user may not make them: run 'cat2 bus check --role broker' "
            "once, with credentials that may"
        )
    if isinstance(error, TimeoutError | ServiceUnavailableError):
        return Unavailable(f"JetStream does not answer, a cluster may be electing a leader: {reason}")
    return BusError(f"cannot make the buckets: {reason}")

"""The key-value buckets of the bus: what they are, and the operations on them.

A bucket is a JetStream stream ``KV_<bucket>`` that keeps the last message of each subject
``$KV.<bucket>.<key>`` (NATS ADR-8). A revision is a sequence number of that stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServiceUnavailableError

from caterva2.bus.access import denies
from caterva2.errors import BusError, Caterva2Error, Unavailable

__all__ = [
    "ALIVE",
    "ALIVE_TTL_S",
    "BUCKETS",
    "DATA",
    "MARKER_TTL_S",
    "REPLICAS",
    "REQUEST_S",
    "ROOTS",
    "SOURCES",
    "VERSION_NEEDED",
    "Bucket",
    "Gone",
    "Stored",
    "config_of",
    "ensure",
    "gone_of",
    "stream_info",
]

ROOTS = "C2_ROOTS"
"""Root -> `caterva2.bus.records.Claim`."""

DATA = "C2_DATA"
"""Root and dataset -> entry."""

ALIVE = "C2_ALIVE"
"""Root -> `caterva2.bus.records.Heartbeat`; in memory."""

SOURCES = "C2_SOURCES"
"""Instance -> `caterva2.bus.records.SourceBeat`; in memory."""

ALIVE_TTL_S = 5.0
"""Without a heartbeat for this long a publisher, or a further source, is gone."""

MARKER_TTL_S = 3600.0
"""How long a deletion can be seen by those who resume."""

REQUEST_S = 3.0
"""How long an operation may take."""

BUCKETS = (ROOTS, DATA, ALIVE, SOURCES)
"""All of them."""

REPLICAS = 3
"""On how many servers of a cluster a bucket is kept: one may be lost."""

ASKED = 4
"""How often a server is asked for a bucket within `REQUEST_S`."""

VERSION_NEEDED = (2, 11)
"""Of nats-server: it has per-message TTL and markers of what expired."""

# Error codes of JetStream
_WRONG_REVISION = (10071, 10164)
_NO_PEERS = 10005
_MADE_OTHERWISE = 10058
_NOT_CLUSTERED = 10074
_NOT_READY = (10008, 10009)


class Gone(Enum):
    """Why there is no value under a key."""

    DELETED = "deleted"
    """Somebody deleted it."""
    EXPIRED = "expired"
    """It was not renewed in time."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is under a key.

    Attributes
    ----------
    value : bytes or None
    revision : int
        0 if there never was anything.
    gone : Gone or None
        Why there is no value; None as well where there never was one.
    """

    value: bytes | None
    revision: int
    gone: Gone | None = None


def gone_of(headers: Mapping[str, str] | None) -> Gone | None:
    """Return what the headers of a message say of a deletion; None if it has a value."""
    if not headers:
        return None
    if headers.get("KV-Operation") in ("DEL", "PURGE"):
        return Gone.DELETED
    return Gone.EXPIRED if "Nats-Marker-Reason" in headers else None


class Bucket:
    """Operations on a bucket over a connection.

    Parameters
    ----------
    client : Client
    name : str

    Raises
    ------
    BusError
        From every operation that gets no answer or is refused.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._jetstream = client.jetstream(timeout=REQUEST_S)
        self._name = name

    async def get(self, key: str) -> Stored:
        """Return what is under a key, as the leader of the bucket knows it."""
        try:
            message = await self._jetstream.get_msg(f"KV_{self._name}", subject=f"$KV.{self._name}.{key}")
        except NotFoundError:
            return Stored(None, 0)
        except (NatsError, TimeoutError) as error:
            asked = f"$JS.API.STREAM.MSG.GET.KV_{self._name}"
            raise self._failed("read", key, error, asked) from error
        gone = gone_of(message.headers)
        return Stored(None if gone else message.data or b"", message.seq or 0, gone)

    async def put(self, key: str, value: bytes) -> int:
        """Set a value; return its revision."""
        return await self._publish("write", key, value, {})

    async def put_all(self, values: Mapping[str, bytes]) -> dict[str, int]:
        """Set values by key, all under way at once; return their revisions by key.

        It is what as many `put` do, at a fraction of what they cost: a request of the client has an
        inbox, a timer and a task of its own, here all share them.

        Raises
        ------
        BusError
            If one of them gets no answer or is refused; the others may have been set.
        """
        if not values:
            return {}
        answers = _Answers(list(values))
        try:
            await self._put_all(values, answers)
        except (NatsError, TimeoutError) as error:
            raise self._failed("write", answers.waited_for(), error) from error
        return answers.revisions

    async def _put_all(self, values: Mapping[str, bytes], answers: _Answers) -> None:
        client, inbox = self._client, self._client.new_inbox()
        subscription = await client.subscribe(f"{inbox}.*", cb=answers.take)
        try:
            for number, (key, value) in enumerate(values.items()):
                await client.publish(f"$KV.{self._name}.{key}", value, reply=f"{inbox}.{number}")
            async with asyncio.timeout(REQUEST_S):  # not around what may swallow the end of it
                await answers.done
        finally:
            with contextlib.suppress(NatsError, OSError):
                await subscription.unsubscribe()

    async def replace(self, key: str, value: bytes, revision: int) -> int | None:
        """Set a value if the key is still at a revision (0: never written); return the new one, else None."""
        try:
            headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
            return await self._publish("write", key, value, headers)
        except BusError as error:
            if isinstance(error.__cause__, APIError) and error.__cause__.err_code in _WRONG_REVISION:
                return None
            raise

    async def delete(self, key: str, marker_ttl_s: float | None = None) -> int:
        """Delete a key; return the revision of the marker.

        Parameters
        ----------
        key : str
        marker_ttl_s : float, optional
            Keep the marker for this long; by default for as long as the bucket keeps anything.
        """
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        if marker_ttl_s is not None:
            headers["Nats-TTL"] = str(int(marker_ttl_s))
        return await self._publish("delete", key, b"", headers)

    async def _publish(self, verb: str, key: str, value: bytes, headers: dict[str, str]) -> int:
        try:
            acknowledged = await self._jetstream.publish(
                f"$KV.{self._name}.{key}", value, headers=headers or None
            )
        except (NatsError, TimeoutError) as error:
            raise self._failed(verb, key, error) from error
        return int(acknowledged.seq)

    def _failed(self, verb: str, key: str, error: Exception, asked: str | None = None) -> BusError:
        denied = denies(self._client, asked or f"$KV.{self._name}.{key}")
        reason = "permission denied" if denied else str(error) or type(error).__name__
        return BusError(f"cannot {verb} {key!r} in {self._name}: {reason}")


class _Answers:
    """The answers to puts that are numbered from 0.

    Attributes
    ----------
    revisions : dict of str to int
        By key, of those that were answered.
    done : Future
        Done when all are answered, or one is refused.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self.revisions: dict[str, int] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def waited_for(self) -> str:
        """Return the key of a put that was refused, or was not answered."""
        return next((key for key in self._keys if key not in self.revisions), self._keys[0])

    async def take(self, message: Msg) -> None:
        """Take an answer in."""
        if self.done.done():
            return
        try:
            revision = _revision_of(message)
        except NatsError as error:
            self.done.set_exception(error)
            return
        self.revisions[self._keys[int(message.subject.rpartition(".")[2])]] = revision
        if len(self.revisions) == len(self._keys):
            self.done.set_result(None)


def _revision_of(message: Msg) -> int:
    """Return the revision that the answer to a put says.

    Raises
    ------
    NatsError
        If it is a refusal.
    """
    if message.headers and message.headers.get("Status") == "503":
        raise NoStreamResponseError
    answer = json.loads(message.data)
    if "error" in answer:
        raise APIError.from_error(answer["error"])
    return int(answer["seq"])


def config_of(bucket: str, replicas: int = 1) -> api.StreamConfig:
    """Return how a bucket is made."""
    in_memory = bucket in (ALIVE, SOURCES)
    return api.StreamConfig(
        name=f"KV_{bucket}",
        subjects=[f"$KV.{bucket}.>"],
        allow_direct=True,
        allow_msg_ttl=True,
        allow_rollup_hdrs=True,
        deny_delete=True,
        discard=api.DiscardPolicy.NEW,
        max_age=ALIVE_TTL_S if in_memory else 0,
        duplicate_window=ALIVE_TTL_S if in_memory else 120,
        max_msgs_per_subject=1,
        num_replicas=replicas,
        storage=api.StorageType.MEMORY if in_memory else api.StorageType.FILE,
        subject_delete_marker_ttl=ALIVE_TTL_S if in_memory else MARKER_TTL_S,
    )


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
        raise _ensure_failed(client, error) from error


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


def _ensure_failed(client: Client, error: Exception) -> Caterva2Error:
    reason = str(error) or type(error).__name__
    if isinstance(error, ServiceUnavailableError) and error.err_code not in _NOT_READY:
        return BusError("nats-server runs without JetStream, or it is not ready: start it with -js")
    if isinstance(error, APIError) and error.err_code == _NO_PEERS:
        return Unavailable(
            f"cannot make the buckets: the cluster has no room for {REPLICAS} replicas now. Start its other "
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

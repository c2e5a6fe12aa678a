"""The key-value buckets of the bus: what they are, and the operations on them.

A bucket is a JetStream stream ``KV_<bucket>`` that keeps the last message of each subject
``$KV.<bucket>.<key>`` (NATS ADR-8). A revision is a sequence number of that stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import api
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError
from pydantic_core import from_json

from caterva2.bus.client import denies
from caterva2.errors import BusError
from caterva2.turns import in_turns

__all__ = [
    "ALIVE",
    "ALIVE_TTL_S",
    "BEAT_S",
    "BUCKETS",
    "DATA",
    "MARKER_TTL_S",
    "REQUEST_S",
    "ROOTS",
    "SOURCES",
    "WITHDRAW_S",
    "Bucket",
    "Gone",
    "Stored",
    "config_of",
    "gone_of",
]

ROOTS = "C2_ROOTS"
"""Root -> `caterva2.bus.records.Claim`."""

DATA = "C2_DATA"
"""Root and dataset -> entry."""

ALIVE = "C2_ALIVE"
"""Root -> `caterva2.bus.records.Heartbeat`; in memory."""

SOURCES = "C2_SOURCES"
"""Instance -> `caterva2.bus.records.SourceBeat`; in memory."""

BEAT_S = 1.5
"""Pause between the heartbeats of a publisher, or of a further source, in seconds."""

WITHDRAW_S = 1.0
"""How long a clean stop waits for the bus to take a goodbye, in seconds."""

ALIVE_TTL_S = 5.0
"""Without a heartbeat for this long a publisher, or a further source, is gone."""

MARKER_TTL_S = 3600.0
"""How long a deletion can be seen by those who resume."""

REQUEST_S = 3.0
"""How long an operation may take."""

BUCKETS = (ROOTS, DATA, ALIVE, SOURCES)
"""All of them."""

_WRONG_REVISION = (10071, 10164)


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
            async for number, (key, value) in in_turns(enumerate(values.items())):
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
    answer = from_json(message.data)
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

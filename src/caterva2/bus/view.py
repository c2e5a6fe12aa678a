"""Following a part of a bucket, and noticing when something may have been missed.

The client's own watch does not see that a store was rolled back, wiped or made anew. A `View` uses a named
consumer of its own: every message has the consumer's number, so a gap shows; while nothing happens the server
sends the number reached, so that a missing last message and a dead server show. After an interruption it
resumes with the last messages seen, unless they are others by now or their numbers make no sense any more:
then it reads all again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import deque
from operator import itemgetter
from typing import NamedTuple, Protocol

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js import api
from nats.js.errors import NotFoundError

from caterva2.bus.buckets import MARKER_TTL_S, REQUEST_S, Gone, gone_of
from caterva2.bus.connection import Bus, checkpoint
from caterva2.bus.streams import ensure, stream_info
from caterva2.errors import BusError
from caterva2.turns import Turn

__all__ = ["Change", "Follower", "Position", "View"]

HEARTBEAT_S = 1.0
"""How often the server speaks while nothing happens, in seconds; after three misses the view starts again."""

IDLE_S = 30.0
"""The server forgets a consumer whose reader is gone for this long, in seconds."""

HELD = 5000
"""How many keys are sorted at a time before they are told, while all is read: that takes a turn."""

TOLD = 100
"""How many messages come again when a view resumes: that they are the same shows that the store is."""

FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 2.0

log = structlog.get_logger(__name__)


class Change(NamedTuple):
    """What a key has become.

    Attributes
    ----------
    key : str
    value : bytes or None
        None if it is gone.
    revision : int
    gone : Gone or None
    """

    key: str
    value: bytes | None
    revision: int
    gone: Gone | None


class Position(NamedTuple):
    """How far a view has come, for one that goes on from there later, in another process.

    Attributes
    ----------
    epoch : str
    revision : int
        As those of the `View`.
    heard_at : float
        When the server was last heard from, in seconds since the epoch.
    told : tuple of (int, str)
        Revisions and times of the last messages: that they are the same shows that the store is.
    """

    epoch: str
    revision: int
    heard_at: float
    told: tuple[tuple[int, str], ...]


class Follower(Protocol):
    """What is told the changes; on the event loop, those of a key in order of revision.

    All changes come in that order, but between `begin` and `done`. Then they come sorted by key, many at a
    time: who keeps them on disk writes each page once.
    """

    def begin(self) -> None:
        """Prepare: all keys that are there come next."""
        ...

    def change(self, change: Change) -> None:
        """Take in what a key has become; possibly what it was."""
        ...

    def done(self) -> None:
        """Conclude: all that was there at `begin` has come; a key that did not is not there."""
        ...


class _Doubt(Exception):
    """Something may have been missed."""


class View:
    """Follows the keys of a bucket that match a pattern.

    Parameters
    ----------
    bus : Bus
    bucket : str
    pattern : str
        A key, or ``prefix.>``.
    follower : Follower
    position : Position, optional
        Where to go on: the follower knows what was told up to there.

    Attributes
    ----------
    synced : bool
        Whether all that happened up to now, but for what is on its way, was told.
    epoch : str
        Names the stream that revisions belong to: another one after the store was wiped.
    revision : int
        Everything up to this revision was told (at least), once it is in sync.
    resyncs, resumes : int
        How often all was read again, and how often a view resumed.
    """

    def __init__(
        self, bus: Bus, bucket: str, pattern: str, follower: Follower, position: Position | None = None
    ) -> None:
        self._bus = bus
        self._bucket = bucket
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._pattern = self._prefix + pattern
        self._follower = follower
        self._inbox: deque[Msg] = deque()
        self._held: deque[Change] = deque()  # taken in, but not told yet
        self._arrived = asyncio.Event()
        self._doubted = False
        self._begun = False  # told `begin`, and not `done` yet
        self._heard_at = 0.0
        self._told: deque[tuple[int, str]] = deque(maxlen=TOLD)  # revisions and times of the last messages
        self._resumed_at = 0
        self.synced = False
        self.epoch = ""
        self.revision = 0
        self.resyncs = 0
        self.resumes = 0
        if position is not None:
            self.go_on(position)

    def go_on(self, position: Position) -> None:
        """Go on from a position, whose changes the follower knows; not while it runs."""
        silent_s = time.time() - position.heard_at
        if silent_s >= 0:  # else the clock was set back: nobody knows for how long
            self.epoch, self.revision = position.epoch, position.revision
            self._heard_at = time.monotonic() - silent_s
            self._told.extend(position.told)

    @property
    def position(self) -> Position | None:
        """How far it has come; None while it reads all, or has to."""
        if self._begun or self._doubted or not self.epoch:
            return None
        heard_at = time.time() - (time.monotonic() - self._heard_at)
        return Position(self.epoch, self.revision, heard_at, tuple(self._told))

    def resync(self, why: str) -> None:
        """Read all again, at once."""
        if not self._doubted:
            log.info("bus view reads all again", stream=self._stream, keys=self._pattern, why=why)
            self._doubted = True
            self.synced = False
            self._arrived.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            checkpoint()
            try:
                async with self._bus.session() as client:
                    await self._follow(client)
            except NotFoundError:
                log.warning("a bucket is gone, making it again", stream=self._stream)
                with contextlib.suppress(BusError, NatsError, TimeoutError):
                    async with self._bus.session() as client:
                        await ensure(client)
            except (_Doubt, BusError, NatsError, TimeoutError, OSError) as error:
                log.debug("bus view interrupted", stream=self._stream, why=str(error) or type(error).__name__)
            finally:
                if self.synced or self._doubted:
                    pause_s = FIRST_PAUSE_S
                self.synced = False
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    async def _follow(self, client: Client) -> None:
        """Follow over one connection, until asked to read all again."""
        jetstream = client.jetstream(timeout=REQUEST_S)
        state = await stream_info(jetstream, self._bucket)
        epoch, last = str(state.created), state.state.last_seq
        self._inbox.clear()
        subscription = await self._subscribe(client)
        try:
            full = self._begin(epoch, last)
            consumer = await jetstream.add_consumer(
                self._stream,
                name=f"view-{secrets.token_hex(8)}",
                filter_subject=self._pattern,
                deliver_subject=subscription.subject,
                ack_policy=api.AckPolicy.NONE,
                max_deliver=1,
                mem_storage=True,
                num_replicas=1,
                idle_heartbeat=HEARTBEAT_S,
                flow_control=True,
                inactive_threshold=IDLE_S,
                deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT
                if full
                else api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=None if full else self._told[0][0] if self._told else self.revision + 1,
            )
            delivered = consumer.delivered.consumer_seq if consumer.delivered else 0
            await self._read(client, last, empty=not consumer.num_pending and not delivered)
        finally:
            with contextlib.suppress(NatsError, OSError):
                await subscription.unsubscribe()

    async def _subscribe(self, client: Client) -> Subscription:
        async def receive(message: Msg) -> None:
            self._inbox.append(message)
            self._arrived.set()

        return await client.subscribe(
            client.new_inbox(), cb=receive, pending_msgs_limit=1 << 20, pending_bytes_limit=1 << 30
        )

    def _begin(self, epoch: str, last: int) -> bool:
        silent_s = time.monotonic() - self._heard_at
        full = self._doubted or epoch != self.epoch or last < self.revision or silent_s > MARKER_TTL_S / 2
        self._doubted = False
        self._arrived.clear()
        self._heard_at = time.monotonic()
        if not full:
            self.resumes += 1
            self._resumed_at = self.revision
            return False
        self.resyncs += 1
        self.epoch, self.revision, self._begun = epoch, 0, True
        self._resumed_at = 0
        self._told.clear()
        self._held.clear()
        self._follower.begin()
        return True

    def _caught_up(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
        self.synced = True
        if self._begun:
            self._begun = False
            self._follower.done()

    async def _read(self, client: Client, last: int, *, empty: bool) -> None:
        """Take messages in until asked to read all again.

        Parameters
        ----------
        client : Client
        last : int
            Last revision of the stream, from before the consumer was made.
        empty : bool
            Nothing is going to come, for now.
        """
        if empty:
            await self._tell_held()
            self._caught_up(last)
        number = 0
        while not self._doubted:
            checkpoint()
            async with asyncio.timeout(3 * HEARTBEAT_S):
                await self._arrived.wait()
            self._arrived.clear()
            self._heard_at = time.monotonic()
            turn = Turn()
            while self._inbox and not turn.is_over:
                message = self._inbox.popleft()
                status = (message.headers or {}).get("Status")
                if status is None:
                    number += 1
                    is_last = self._take(message, number)
                    if is_last or len(self._held) >= HELD:
                        await self._tell_held()
                    if is_last and not self._doubted:
                        self._caught_up(last)
                elif message.reply:  # flow control: go on sending
                    await client.publish(message.reply)
                else:
                    self._check_heartbeat(message, number)
                if self._doubted:
                    return
            if self._inbox:
                self._arrived.set()
                await asyncio.sleep(0)

    async def _tell_held(self) -> None:
        self._held = deque(sorted(self._held, key=itemgetter(0)))
        while self._held:
            turn = Turn()
            while self._held and not turn.is_over:
                self._follower.change(self._held.popleft())
            await asyncio.sleep(0)

    def _take(self, message: Msg, number: int) -> bool:
        """Take a message in; return whether it is the last of what was there."""
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>; with a
        # domain and an account in front, so counted from the end of the fixed form
        tokens = message.reply.split(".")
        fixed = tokens if len(tokens) == 9 else tokens[2:11]
        revision, position, pending = int(fixed[5]), int(fixed[6]), int(fixed[8])
        if position != number:
            raise _Doubt(f"message {position} came in place of {number}")
        told = revision, fixed[7]
        if revision > self._resumed_at:
            self._told.append(told)
            gone = gone_of(message.headers)
            key = message.subject[len(self._prefix) :]
            change = Change(key, None if gone else message.data, revision, gone)
            if self._begun:
                self._held.append(change)
            else:
                self._follower.change(change)
            self.revision = max(self.revision, revision)
        elif told not in self._told:
            self.resync("the store was rolled back and written to")
            return False
        return not pending and not self.synced

    def _check_heartbeat(self, message: Msg, number: int) -> None:
        headers = message.headers or {}
        if headers.get("Status") != "100":
            raise _Doubt(f"the server says {headers}")
        if int(headers.get("Nats-Last-Consumer", number)) != number:
            raise _Doubt(f"the server is at message {headers['Nats-Last-Consumer']}, here it is {number}")

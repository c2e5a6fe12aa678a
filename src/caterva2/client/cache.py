"""Looking after the cache of a subscriber."""

from __future__ import annotations

import builtins

from caterva2.client import protocol
from caterva2.client.protocol import Reply
from caterva2.client.records import CacheCheck, Cached
from caterva2.client.transport import Transport

__all__ = ["Cache"]

CHECK_SILENCE_S = 6 * 3600.0
"""A check answers when it is done, and hashes everything: so long it may be silent, in seconds."""


class Cache:
    """The cache of a subscriber; get it from `Client.cache`.

    Every method raises `Unavailable` and `Unauthorized`, `InvalidPath` for what is no pattern, and `NotFound`
    where it is no subscriber that is asked.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, pattern: str | None = None) -> builtins.list[Cached]:
        """Return what is cached of the datasets that a pattern names, of all by default, by path."""
        return protocol.read_cached(self._transport.call(protocol.ask_cache("GET", "cache", pattern)))

    def pins(self) -> builtins.list[str]:
        """Return the patterns that are pinned."""
        reply = self._transport.call(protocol.ask_cache("GET", "pins"))
        return [str(pattern) for pattern in protocol.read_json(reply)["patterns"]]

    def pin(self, pattern: str) -> int:
        """Keep what is cached of some datasets from eviction; returns how many they are now.

        Raises
        ------
        NotFound
            If there is nothing of that name.
        """
        reply = self._transport.call(protocol.ask_cache("POST", "pin", pattern))
        return int(protocol.read_json(reply)["datasets"])

    def unpin(self, pattern: str) -> int:
        """Pin a pattern no more; returns how many datasets it names.

        Raises
        ------
        NotFound
            If it was not pinned.
        """
        reply = self._transport.call(protocol.ask_cache("POST", "unpin", pattern))
        return int(protocol.read_json(reply)["datasets"])

    def drop(self, pattern: str) -> tuple[int, int]:
        """Drop what is cached of some datasets, pinned or not.

        Returns
        -------
        datasets, freed_bytes : int
        """
        answer = protocol.read_json(self._transport.call(protocol.ask_cache("DELETE", "cache", pattern)))
        return int(answer["datasets"]), int(answer["freed_bytes"])

    def fsck(self, pattern: str | None = None) -> builtins.list[CacheCheck]:
        """Let everything that is cached of some datasets, of all by default, be hashed again and repaired.

        Returns
        -------
        list of CacheCheck
            One for each version that was there. It comes when all is done.
        """
        request = protocol.ask_cache("POST", "fsck", pattern)
        with self._transport.open(request, silence_s=CHECK_SILENCE_S) as body:
            return protocol.read_checked(Reply(body.status, body.headers, body.read()))

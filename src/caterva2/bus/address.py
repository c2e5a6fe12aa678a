"""Where the bus is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from caterva2.bus.access import Access
from caterva2.config import Token
from caterva2.errors import Corrupt

__all__ = ["BusAddress", "without_secrets"]


@dataclass(frozen=True, slots=True)
class BusAddress:
    """Where the bus is.

    Attributes
    ----------
    urls : tuple of str
        Servers of one NATS, each of which will do: ``nats://host:port``.
    token : Token or None
        What a server of the broker asks for.
    access : Access
        What is this service's own: it is told to nobody.
    replicas : int or None
        On how many servers buckets are kept that are missing, see `caterva2.bus.streams.ensure`.
    """

    urls: tuple[str, ...] = field(repr=False)
    token: Token | None = None
    access: Access = field(default_factory=Access)
    replicas: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what ``/api/bus`` answers."""
        return {"urls": list(self.urls), "token": None if self.token is None else str(self.token)}

    @classmethod
    def from_json(cls, raw: object) -> BusAddress:
        """Parse what ``/api/bus`` answers.

        Raises
        ------
        Corrupt
        """
        urls = raw.get("urls") if isinstance(raw, dict) else None
        if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
            raise Corrupt("not the address of a bus: 'urls' is not a list of URLs")
        token = raw.get("token") if isinstance(raw, dict) else None
        if token is not None and not isinstance(token, str):
            raise Corrupt("not the address of a bus: 'token' is not text")
        return cls(tuple(urls), None if token is None else Token(token))

    def __str__(self) -> str:
        return ", ".join(map(without_secrets, self.urls))


def without_secrets(text: str) -> str:
    """Return a text without the user part of the URLs in it."""
    return re.sub(r"(\w+://)[^/@\s]*@", r"\1", text)

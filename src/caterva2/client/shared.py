"""The connections that what was unpickled, or opened by its URL, shares in this process.

A dataset that is sent to other processes names its subscriber, and nothing of how to get there: no token, no
connection. A thousand tasks that read a dataset would open a thousand connections if each unpickled one had
its own; so there is one `Transport` for each subscriber and token. That is the only state of a module of
this package. Transports may be used by several threads and after a fork, and one that is closed opens again
when it is used.
"""

from __future__ import annotations

from functools import lru_cache

from caterva2 import config
from caterva2.client.transport import Transport

__all__ = ["close_shared", "configured_transport", "shared_transport"]

MOST = 64
"""Subscribers that are kept; the connections of another one close once nobody uses it."""


def shared_transport(settings: config.ClientSettings, *, progress: bool = False) -> Transport:
    """Return the transport of this process for a subscriber."""
    return _transports(settings, progress)


def configured_transport(url: str) -> Transport:
    """Return the transport of this process for a subscriber, with the token that is configured here.

    Raises
    ------
    ConfigError
        If a setting is malformed.
    """
    return shared_transport(config.load(config.ClientSettings, subscriber=url))


def close_shared() -> None:
    """Close the connections of this process that are shared and not in use, and forget their tokens."""
    _transports.cache_clear()


@lru_cache(maxsize=MOST)  # which is safe to call from threads: at worst one is made in vain
def _transports(settings: config.ClientSettings, progress: bool) -> Transport:
    return Transport(settings.subscriber, settings.token, settings.timeout_s, progress=progress)

"""Where to begin: a client of a subscriber, or what a URL names."""

from __future__ import annotations

import os
from typing import Any

from caterva2 import config
from caterva2.client.array import Array
from caterva2.client.client import Client
from caterva2.client.dataset import File, Frame
from caterva2.client.group import Directory, Root
from caterva2.client.location import parse_location
from caterva2.client.shared import shared_transport
from caterva2.client.transport import Transport
from caterva2.errors import Changed

__all__ = ["connect", "open"]


def connect(
    url: str | None = None,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    timeout_s: float | None = None,
    progress: bool = False,
) -> Client:
    """Return a client of a subscriber (or of a publisher: the API is the same). Nothing is sent yet.

    Parameters
    ----------
    url : str, optional
        By default ``CATERVA2_SUBSCRIBER``, else what the configuration file says, else
        ``http://127.0.0.1:8002``.
    token : str, optional
        By default ``CATERVA2_TOKEN``, else what the configuration file says.
    token_file : path, optional
        File that holds the token.
    timeout_s : float, optional
        How long the other side may stay silent, in seconds; 30 by default. A large answer may take longer
        to begin.
    progress : bool
        Show a bar for reads and downloads that last longer than half a second: in a terminal (on stderr) or
        a notebook, nowhere else.

    Raises
    ------
    ConfigError
        If a setting is malformed.
    """
    settings = _settings(url, token=token, token_file=token_file, timeout_s=timeout_s)
    return Client(Transport(settings.subscriber, settings.token, settings.timeout_s, progress=progress))


def open(  # as zarr, h5py and blosc2 call it
    url: str | None = None,
    *,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    timeout_s: float | None = None,
    progress: bool = False,
) -> Client | Root | Directory | Array | Frame | File:
    """Open what a URL or a path names: a subscriber, a root, a directory in it, or a dataset.

    Parameters
    ----------
    url : str, optional
        As `caterva2.client.location.parse_location` reads it: what ``cat2 url`` prints,
        ``caterva2://host:port/foo/x.b2nd``, or plain ``foo/x.b2nd`` at the subscriber that is configured. By
        default all roots of that one.
    token, token_file, timeout_s, progress
        As for `connect`.

    Returns
    -------
    Client, Root, Directory, Array, Frame or File
        All but a `Client` share the connections of this process to that subscriber.

    Raises
    ------
    ConfigError, InvalidPath, NotFound, Unavailable, Unauthorized
    Changed
        If the URL names a version that is not the current one: what is opened always is.
    """
    where = parse_location(url or "")
    if not where.path:
        return connect(
            where.subscriber, token=token, token_file=token_file, timeout_s=timeout_s, progress=progress
        )
    settings = _settings(where.subscriber, token=token, token_file=token_file, timeout_s=timeout_s)
    client = Client(shared_transport(settings, progress=progress))
    found: Root | Directory | Array | Frame | File = client[where.path]
    if where.etag is not None:
        current = None if isinstance(found, Root | Directory) else found.etag
        if current != where.etag:
            raise Changed(where.path, where.etag, current)
    return found


def _settings(url: str | None, **flags: Any) -> config.ClientSettings:
    return config.load(config.ClientSettings, subscriber=url, **flags)

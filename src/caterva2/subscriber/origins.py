"""Who is asked for the bytes of a root."""

from __future__ import annotations

import aiohttp

from caterva2.config import SubscriberSettings
from caterva2.errors import Unavailable
from caterva2.model.catalogue import Catalogue
from caterva2.model.path import DatasetPath
from caterva2.source.http import HttpSource, UpstreamStats
from caterva2.source.protocol import Source

__all__ = ["Origins"]


class Origins:
    """One `HttpSource` for each publisher that the catalogue names, sharing a connection pool.

    Use it as an async context manager.
    """

    def __init__(self, catalogue: Catalogue, settings: SubscriberSettings) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._sources: dict[str, HttpSource] = {}
        self._session: aiohttp.ClientSession | None = None
        self.stats = UpstreamStats()

    async def __aenter__(self) -> Origins:
        connector = aiohttp.TCPConnector(limit=0)  # each source bounds its own requests
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._session is not None
        await self._session.close()

    def source(self, path: DatasetPath) -> Source:
        """Return who serves a dataset now.

        Raises
        ------
        NotFound
            If there is no such root.
        Unavailable
            If its publisher is known to be gone.
        """
        root = self._catalogue.root(path.root)
        if not root.url or root.state == "offline":
            raise Unavailable(
                f"root {root.name!r} is offline: its publisher {root.url or '(never seen)'} is gone, and "
                "this part of the data is not cached here"
            )
        source = self._sources.get(root.url)
        if source is None:
            self._forget_unused()
            source = self._sources[root.url] = self._make(root.url)
        return source

    def _make(self, url: str) -> HttpSource:
        assert self._session is not None
        return HttpSource(
            url,
            self._session,
            token=self._settings.token,
            gap_bytes=self._settings.gap_bytes,
            requests=self._settings.upstream_requests,
            timeout_s=self._settings.upstream_timeout_s,
            stats=self.stats,
        )

    def _forget_unused(self) -> None:
        named = {root.url for root in self._catalogue.roots.values()}
        for url in self._sources.keys() - named:
            del self._sources[url]

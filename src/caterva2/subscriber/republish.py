"""Announcing a subscriber as a further source of the roots that it has."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from caterva2.bus.records import SourceBeat
from caterva2.http.load import Load
from caterva2.model.catalogue import Catalogue
from caterva2.model.root import Root

__all__ = ["ALL", "Republished", "is_chosen"]

ALL = "*"
"""Names all roots in `SubscriberSettings.republish`."""

PATIENCE_S = 5.0
"""So long a root may take to come before it is said that it is not there, in seconds."""

log = structlog.get_logger(__name__)


def is_chosen(root: Root, chosen: Sequence[str]) -> bool:
    """Return whether a root is announced to others: it is one of those chosen, and was known completely.

    Parameters
    ----------
    root : Root
    chosen : sequence of str
        Names; `ALL` stands for all.
    """
    return root.confirmed_at is not None and (ALL in chosen or root.name in chosen)


class Republished:
    """What is announced, each time that it is.

    Parameters
    ----------
    catalogue : Catalogue
    chosen : sequence of str
        The roots to announce; ``*`` for all.
    instance : str
        Names the state directory.
    url : callable
        Returns the address for others.
    load : Load
    """

    def __init__(
        self,
        catalogue: Catalogue,
        chosen: Sequence[str],
        *,
        instance: str,
        url: Callable[[], str],
        load: Load,
    ) -> None:
        self._catalogue = catalogue
        self._chosen = chosen
        self._instance = instance
        self._url = url
        self._load = load
        self._since = time.monotonic()
        self._said: set[str] = set()

    def beat(self) -> SourceBeat:
        """Return what to announce now: of the roots chosen, those whose catalogue was ever confirmed."""
        known = [root.name for root in self._catalogue.roots.values() if is_chosen(root, self._chosen)]
        if time.monotonic() - self._since > PATIENCE_S:
            self._say_missing({*self._chosen} - {ALL, *known})
        return SourceBeat(self._instance, self._url(), tuple(known), self._load.average())

    def _say_missing(self, names: set[str]) -> None:
        for name in sorted(names - self._said):
            log.warning("a root to republish is not there yet", root=name)
        self._said |= names

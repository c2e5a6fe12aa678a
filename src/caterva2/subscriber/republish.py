"""Announcing a subscriber as a further source of the roots that it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from caterva2.bus.records import SourceBeat
from caterva2.http.load import Load
from caterva2.model.catalogue import Catalogue

__all__ = ["Republished"]

log = structlog.get_logger(__name__)


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
        self._missed: set[str] = set()

    def beat(self) -> SourceBeat:
        """Return what to announce now: of the roots chosen, those whose catalogue was ever confirmed."""
        known = [name for name, root in self._catalogue.roots.items() if root.confirmed_at is not None]
        if "*" not in self._chosen:
            for name in set(self._chosen) - set(known) - self._missed:
                self._missed.add(name)
                log.warning("a root to republish is not there yet", root=name)
            known = [name for name in known if name in self._chosen]
        return SourceBeat(self._instance, self._url(), tuple(known), self._load.average())

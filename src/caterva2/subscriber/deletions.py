"""What becomes of what is cached of datasets that are not published any more."""

from __future__ import annotations

import asyncio

from caterva2.cache.cached import CachedSource
from caterva2.model.catalogue import Catalogue, Event
from caterva2.model.path import DatasetPath, parse_path

__all__ = ["drop_deleted"]

GRACE_S = 30.0
"""So long is kept what was deleted, in seconds: who writes a file anew often deletes it first, and what did
not change of it needs not be moved again."""

LOOK_S = 1.0
"""How often it is looked whether that is over, in seconds."""


async def drop_deleted(catalogue: Catalogue, cache: CachedSource) -> None:
    """Drop what is cached of datasets some time after they were deleted, unless they came back.

    Also of those of which the deletion was missed, or the process ended before it was over. As long as it is
    not known for sure what a root has, nothing of it is dropped.
    """
    now = asyncio.get_running_loop().time
    deleted = {
        state.path: now() + GRACE_S
        for state in cache.states()
        if state.path.root in catalogue.roots and not _is_published(catalogue, state.path)
    }

    def on_event(event: Event, _: object) -> None:
        if event.kind == "deleted":
            deleted[parse_path(event.path)] = now() + GRACE_S

    undo = catalogue.listen(on_event)
    try:
        while True:
            await asyncio.sleep(LOOK_S)
            for path in [path for path, at in deleted.items() if at <= now()]:
                root = catalogue.roots.get(path.root)
                if root is None or root.fresh:
                    del deleted[path]
                    if not _is_published(catalogue, path):
                        await cache.drop(path)
    finally:
        undo()


def _is_published(catalogue: Catalogue, path: DatasetPath) -> bool:
    root = catalogue.roots.get(path.root)
    return root is not None and path.name in root.entries

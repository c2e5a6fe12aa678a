"""Answers that list much: encoded in turns of the event loop, as a large root takes many."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.responses import Response

from caterva2.turns import in_turns, runs

__all__ = ["json_array", "json_response"]

RUN = 200
"""Rows that are encoded in one turn."""

T = TypeVar("T")


async def json_array(items: Sequence[T], row: Callable[[T], Any]) -> bytes:  # Any: whatever JSON has
    """Return an array, as JSON.

    Parameters
    ----------
    items : sequence
    row : callable
        Makes of an item what is in the array.
    """
    parts = [_dump([row(item) for item in some])[1:-1] async for some in in_turns(runs(items, RUN))]
    return b"".join((b"[", b",".join(parts), b"]"))


def json_response(
    rows: bytes, *, members: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> Response:  # Any: whatever JSON has
    """Return the answer with an array that is encoded already.

    Parameters
    ----------
    rows : bytes
    members : mapping of str to value, optional
        Of the object in which the array is to be ``rows``; by default the array alone is the answer.
    headers : mapping of str to str, optional
    """
    if members is not None:
        named = b"".join(_dump(name) + b":" + _dump(value) + b"," for name, value in members.items())
        rows = b"".join((b"{", named, b'"rows":', rows, b"}"))
    return Response(rows, media_type="application/json", headers=headers)


def _dump(value: Any) -> bytes:  # Any: whatever JSON has
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

"""``/api/fetch``: parts of arrays and frames, in the form that the client prefers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from caterva2.errors import BadRequest, InvalidSelection
from caterva2.frame.encode import (
    CframeFile,
    StoredFile,
    cframe_of_array,
    cframe_of_items,
    covered_chunks,
    npy_header,
    npy_parts,
)
from caterva2.frame.geometry import dtype_of, geometry_of, typesize_of
from caterva2.http.blocks import stored_blocks
from caterva2.http.bodies import piecewise, stored_bytes, stream_of
from caterva2.http.conditional import not_modified
from caterva2.http.dataset import DataService, lasting_headers
from caterva2.http.made import made_chunk
from caterva2.http.negotiation import MEDIA_TYPES, SliceForm, prefers_blocks, slice_form
from caterva2.http.spool import Spool
from caterva2.model.manifest import Head
from caterva2.model.parts import answer_chunks, cut_answer
from caterva2.model.selection import Axis, Selection, parse_selection

__all__ = ["Query", "fetch", "query_of"]

Array = npt.NDArray[Any]  # of whatever dtype the dataset has

INLINE_BYTES = 256 * 1024
"""So much is copied at once on the loop, in bytes: a thread takes longer to begin."""

INLINE_FRAME_BYTES = 64 * 1024
"""The same where it is made a frame: half a millisecond."""

BODY_PIECE_BYTES = 1 << 20
"""Larger answers are written in pieces of this size, in bytes."""

LARGE_BYTES = 4 * 1024 * 1024
"""Larger answers, decoded, are never held in memory for as long as it takes to send them."""

PART_BYTES = 4 * 1024 * 1024
"""Large frames are made in parts of this size, in bytes, decoded."""


CHUNKS_AT_ONCE = 4
"""So many chunks of `PART_BYTES` at most are read at a time."""

VARY = "Accept, Range, Want-Content-Digest"
"""What the answer depends on beside the URL: with a range, it is another one, not a part of the same."""


class Query(BaseModel):
    """What part of a dataset is asked for.

    Attributes
    ----------
    slice_ : str or None
        ``10:20, 5, ::2``; empty or None for all.
    indices : str or list or None
        One entry for each dimension: an integer, a list of integers, ``"a:b"``, or null for all; as JSON
        text in a query, as JSON in a body.
    field : str or None
        Field of a structured dtype.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    slice_: Annotated[str | None, Field(max_length=1 << 20)] = None
    indices: str | list[Any] | None = None
    field: Annotated[str | None, Field(max_length=1024)] = None

    @property
    def is_empty(self) -> bool:
        """Whether no part is asked for."""
        return self.slice_ is None and self.indices is None and self.field is None


async def query_of(request: Request) -> Query:
    """Parse the query, or the JSON body of a POST.

    Raises
    ------
    BadRequest
        If it is malformed, or has unknown members: each narrows the answer, so to ignore one (``filter`` of
        other servers, a misspelled ``slice``) would be to answer something else.
    """
    try:
        if request.method == "POST":
            return Query.model_validate_json(await request.body() or b"{}")
        asked = dict(request.query_params)
        asked.pop("version", None)  # was heeded where the version was found
        return Query.model_validate(asked)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors())
        raise BadRequest(f"cannot read what is asked for: {wrong}") from error


async def fetch(service: DataService, request: Request, head: Head, query: Query) -> Response:
    """Answer with a part of a dataset; with the stored bytes, if a ``Range`` is asked for instead.

    Raises
    ------
    InvalidSelection, InvalidRange, TooLarge, Unsupported, Changed, Unavailable, IntegrityError, Corrupt
    """
    ranged = request.method == "GET" and "range" in request.headers
    if query.is_empty and (ranged or head.kind == "file"):
        response = await stored_bytes(service, request, head)
        response.headers["Vary"] = VARY
        return response
    if not_modified(request.headers, head.etag):
        return Response(status_code=304, headers=_headers(service, request, head))
    if head.kind == "array":
        return await _of_array(service, request, head, query)
    if query.indices is not None or query.field is not None:
        raise InvalidSelection(f"{head.path} is a {head.kind}: it has neither dimensions nor fields")
    if head.kind == "frame":
        return await _of_frame(service, request, head, query)
    return await _of_file(service, request, head, query)


def _headers(service: DataService, request: Request, head: Head) -> dict[str, str]:
    return lasting_headers(service, request, head) | {"Vary": VARY}


async def _of_array(service: DataService, request: Request, head: Head, query: Query) -> Response:
    field = _check_field(head, query.field)
    shape = head.shape
    assert shape is not None
    accept = request.headers.get("accept")
    form = slice_form(accept)
    headers = _headers(service, request, head)
    if form == "chunk" and (field is not None or query.indices is not None):
        raise BadRequest("a chunk is made of a slice of all fields")
    if query.indices is not None:
        if query.slice_:
            raise BadRequest("give either slice_ or indices")
        array = await service.reader.points(head, _parse_indices(query.indices, len(shape)))
        return await _made(array, field, form, headers)
    selection = parse_selection(query.slice_, shape)
    nbytes = selection.size * dtype_of(head).itemsize
    service.reader.check(nbytes)
    if form == "chunk":
        return await made_chunk(service, request, head, selection, headers)
    if field is None and nbytes and prefers_blocks(accept):
        response = await _for_decoders(service, request, head, selection, headers)
        if response is not None:
            return response
    if nbytes <= LARGE_BYTES:
        return await _made(await service.reader.array(head, selection), field, form, headers)
    wanted = _Slice(head, selection, field)
    if form == "cframe":
        chunks = covered_chunks(head, selection) if field is None else None
        if chunks is not None and geometry_of(head).chunk_nbytes(0) <= PART_BYTES:
            return await _as_stored(service, wanted, chunks, headers)
        return await _on_disk(service, wanted, headers)
    return await _in_slabs(service, wanted, form, headers)


async def _for_decoders(
    service: DataService, request: Request, head: Head, selection: Selection, headers: dict[str, str]
) -> Response | None:
    """Answer a client that decodes blocks; None if it is to have the elements as anybody else."""
    reader, near = service.reader, _is_near(request)
    if near or selection.size * dtype_of(head).itemsize <= INLINE_BYTES:
        kept = reader.kept(head, selection)
        if kept is not None:
            return await _made(kept, None, "npy", headers)
    if reader.is_made(head, selection) or reader.decodes(head, selection, near=near):
        return None
    return await stored_blocks(service, head, selection, headers)


def _is_near(request: Request) -> bool:
    """Return whether a client is on this machine, as far as can be seen."""
    client, server = request.scope.get("client"), request.scope.get("server")
    behind_a_proxy = any(name in request.headers for name in ("forwarded", "via", "x-forwarded-for"))
    return bool(client and server and client[0] == server[0] and not behind_a_proxy)


@dataclass(frozen=True, slots=True)
class _Slice:
    """A large part of an array, or of a field of it."""

    head: Head
    selection: Selection
    field: str | None

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype = dtype_of(self.head)
        return dtype if self.field is None else dtype[self.field]


async def _made(array: Array, field: str | None, form: SliceForm, headers: dict[str, str]) -> Response:
    """Answer with an array that is in memory."""
    if field is not None:
        array = array[field]
    if form == "raw":
        headers |= _raw_headers(array.shape, array.dtype)
    if array.nbytes <= (INLINE_FRAME_BYTES if form == "cframe" else INLINE_BYTES):
        parts = _encode(array, form)
    else:  # even a copy to C order would keep all others waiting, here
        parts = await run_in_threadpool(_encode, array, form)
    return await _bytes_response(headers, MEDIA_TYPES[form], *parts)


async def _in_slabs(
    service: DataService, wanted: _Slice, form: SliceForm, headers: dict[str, str]
) -> Response:
    """Answer with a large array, of which never more than a slab is in memory."""
    head, selection, dtype = wanted.head, wanted.selection, wanted.dtype
    lead = b""
    if form == "raw":
        headers |= _raw_headers(selection.shape, dtype)
    else:
        lead = npy_header(selection.shape, dtype)

    async def body() -> AsyncGenerator[bytes]:
        begun = lead  # with the first piece: what fails before that fails with a status
        async with aclosing(service.reader.slabs(head, selection)) as parts:
            async for part in parts:
                sent, size = 0, part.size * dtype.itemsize
                while sent < size:  # read once more if it was freed for others
                    async with service.reader.slab(head, part, wanted.field) as slab:
                        while piece := slab.copy(sent, sent + BODY_PIECE_BYTES):
                            sent += len(piece)
                            yield begun + piece
                            begun = b""

    nbytes = len(lead) + selection.size * dtype.itemsize
    return await piecewise(body(), nbytes, headers, MEDIA_TYPES[form])


async def _on_disk(service: DataService, wanted: _Slice, headers: dict[str, str]) -> Response:
    """Answer with a large array as a frame, which is made on disk: its length is known when it is done."""
    head, selection, field = wanted.head, wanted.selection, wanted.field
    itemsize = dtype_of(head).itemsize
    chunks = answer_chunks(selection, geometry_of(head).grid.chunks, itemsize)
    kept = tuple(chunk for chunk, axis in zip(chunks, selection.axes, strict=True) if not axis.drop)
    async with Spool() as spool:
        frame = await spool.run(CframeFile, spool.file, selection.shape, wanted.dtype, kept)
        for part in cut_answer(selection, chunks, itemsize, PART_BYTES):
            array = await service.reader.array(head, part.selection)
            await spool.run(frame.write, part.target, array if field is None else array[field])
            del array
        del frame
        return await spool.response(headers, MEDIA_TYPES["cframe"])


async def _as_stored(
    service: DataService, wanted: _Slice, chunks: list[int], headers: dict[str, str]
) -> Response:
    """Answer with an array of whole chunks as a frame of just these, which is made on disk."""
    head = wanted.head
    async with Spool() as spool:
        frame = await spool.run(StoredFile, spool.file, head, wanted.selection.shape)
        for first in range(0, len(chunks), CHUNKS_AT_ONCE):
            group = chunks[first : first + CHUNKS_AT_ONCE]
            found = await asyncio.gather(*(service.reader.chunk(head, nchunk) for nchunk in group))
            for number, chunk in enumerate(found, first):
                await spool.run(frame.write, number, chunk)
        del frame
        return await spool.response(headers, MEDIA_TYPES["cframe"])


def _raw_headers(shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, str]:
    return {
        "X-Caterva2-Shape": json.dumps(shape),
        "X-Caterva2-Dtype": json.dumps(np.lib.format.dtype_to_descr(dtype)),
    }


def _encode(array: Array, form: SliceForm) -> tuple[bytes | memoryview, ...]:
    if form == "cframe":
        return (cframe_of_array(array),)
    header, data = npy_parts(array)
    return (header, data) if form == "npy" else (data,)


def _check_field(head: Head, field: str | None) -> str | None:
    """Return the field, where there is one; checked before anything is read."""
    if field is None:
        return None
    names = dtype_of(head).names
    if names is None or field not in names:
        has = ", ".join(names) if names else "no fields"
        raise InvalidSelection(f"{head.path} has no field {field!r} (it has {has})")
    return field


def _parse_indices(given: str | list[Any], ndim: int) -> tuple[Any, ...]:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise InvalidSelection(f"indices are not JSON: {error}") from error
    if not isinstance(given, list) or len(given) > ndim:
        raise InvalidSelection(f"indices must be a list of at most {ndim} entries, one for each dimension")
    entries: list[Any] = []
    for entry in given:
        if entry is None:
            entries.append(slice(None))
        elif isinstance(entry, str):
            entries.append(_slice_of(entry))
        elif isinstance(entry, list) or (isinstance(entry, int) and not isinstance(entry, bool)):
            entries.append(entry)
        else:
            raise InvalidSelection(f"{entry!r} is not an index: use integers, lists, 'a:b' or null")
    return tuple(entries)


def _slice_of(text: str) -> slice:
    if ":" not in text:
        raise InvalidSelection(f"{text!r} is not an index: use integers, lists, 'a:b' or null")
    parse_selection(text, [1])  # says what is malformed
    return slice(*(int(bound) if bound.strip() else None for bound in text.split(":")))


async def _of_frame(service: DataService, request: Request, head: Head, query: Query) -> Response:
    typesize = typesize_of(head)
    items = int(head.meta["nbytes"]) // typesize
    axis = _run_of(head, query, items)
    data = await service.reader.items(head, axis.start, axis.stop)
    headers = _headers(service, request, head)
    if slice_form(request.headers.get("accept")) == "raw":
        headers |= _raw_headers((axis.count,), np.dtype(f"V{typesize}"))
        return await _bytes_response(headers, MEDIA_TYPES["raw"], data)
    body = await run_in_threadpool(cframe_of_items, data, typesize)
    return await _bytes_response(headers, MEDIA_TYPES["cframe"], body)


async def _of_file(service: DataService, request: Request, head: Head, query: Query) -> Response:
    axis = _run_of(head, query, head.size)
    body = stream_of(service.source, head, axis.start, axis.stop)
    return await piecewise(body, axis.count, _headers(service, request, head), MEDIA_TYPES["cframe"])


def _run_of(head: Head, query: Query, length: int) -> Axis:
    """Return the run of items or bytes that is asked for."""
    axis = parse_selection(query.slice_, [length]).axes[0]
    if axis.step != 1 or axis.reverse:
        raise InvalidSelection(f"{head.path} is a {head.kind}: it is read in steps of 1")
    return axis


async def _bytes_response(headers: dict[str, str], media_type: str, *parts: bytes | memoryview) -> Response:
    """Return a response of parts whose length is known, without holding or joining large ones."""
    length = sum(len(part) for part in parts)
    if length <= BODY_PIECE_BYTES:
        return Response(b"".join(parts), headers=headers, media_type=media_type)
    if length > LARGE_BYTES:
        async with Spool() as spool:
            await spool.write(parts)
            return await spool.response(headers, media_type)

    async def body() -> AsyncIterator[bytes | memoryview]:
        for part in parts:
            for start in range(0, len(part), BODY_PIECE_BYTES):
                yield part[start : start + BODY_PIECE_BYTES]

    return StreamingResponse(body(), headers=headers | {"Content-Length": str(length)}, media_type=media_type)

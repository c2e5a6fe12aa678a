"""``cat2 show``: what is in a dataset."""

from __future__ import annotations

import base64
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from caterva2.cli.options import Connection, Json, is_a_directory
from caterva2.cli.output import human_bytes, human_shape, print_json, width
from caterva2.client import Array, Client, File, Frame, Timing
from caterva2.client.versions import newest_of
from caterva2.errors import BadRequest, InvalidSelection, NotFound
from caterva2.model.selection import Axis, Selection, parse_selection

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Part", "show", "split"]

DEFAULT = Connection()

JSON_ELEMENTS = 10_000
"""Most elements that are printed as JSON."""

SUMMARY_ELEMENTS = 1000
"""More than so many elements are summarised, as numpy does."""

EDGE = 3
"""Elements shown at each end of a summarised dimension, as numpy does."""

CORNERS = 64
"""Most corners that are fetched for a summary."""

HEAD_BYTES = 1024
"""So much of a frame or a file is shown, where no part is asked for."""


class Part(NamedTuple):
    """What is to be shown of a dataset.

    Attributes
    ----------
    path : str
    text : str or None
        The selection, as it was written; None for all.
    field : str or None
        Name of a field of a structured array.
    """

    path: str
    text: str | None = None
    field: str | None = None


def show(
    path: Annotated[
        str, Parameter(help="A dataset, or a part: 'foo/x.b2nd[0, 10:20]', 'foo/x.b2nd[\"a\"]'.")
    ],
    /,
    *,
    json: Json = False,
    explain: Annotated[
        bool, Parameter(help="Say on stderr how the data was had, with what was estimated and moved.")
    ] = False,
    connection: Connection = DEFAULT,
) -> None:
    """Print a dataset, or a part of it; large arrays are summarised as numpy does, and only that is moved."""
    with connection.open() as client, client.timings() as timings:
        newest_of(lambda: _show(*_open(client, path), json=json))  # prints when all is read
        if explain:
            _print_timings(timings, json=json)


def _print_timings(timings: Sequence[Timing], *, json: bool) -> None:
    for timing in timings:
        print(dumps(asdict(timing)) if json else _explained(timing), file=sys.stderr)


def _explained(timing: Timing) -> str:
    """Return how a part was had: ``slice: 812 B in 20.4 ms (estimated: blocks 44.5 ms, slice 19.8 ms)``."""
    if not timing.upstream_bytes:
        return "cached: nothing was moved"
    estimates = ", ".join(f"{name} {ms:.1f} ms" for name, ms in timing.estimates_ms.items())
    moved = f"{timing.choice}: {human_bytes(timing.upstream_bytes)} in {timing.upstream_ms:.1f} ms"
    return f"{moved} (estimated: {estimates})" if estimates else moved


def _show(dataset: Array | Frame | File, part: Part, *, json: bool) -> None:
    if not isinstance(dataset, Array):
        if part.field is not None:
            raise InvalidSelection(f"{dataset.path} is a {dataset.kind}: it has no fields")
        _show_bytes(dataset, part.text, json=json)
        return
    selection = parse_selection(part.text, dataset.shape)
    _check_field(dataset, part.field)
    if json:
        _print_array_json(dataset, selection, part.field)
        return
    print(_summary(dataset, selection, part.field))
    if not selection.size:
        shape = human_shape([axis.count for axis in selection.axes if not axis.drop])
        print(f"{dataset.path}: no elements, {shape} of {dataset.dtype}", file=sys.stderr)


def split(path: str) -> Part:
    """Split ``root/name[selection]["field"]``; a name may have brackets itself, those at the end count."""
    match = re.fullmatch(r"""(.+)\[(["'])(.+)\2\]""", path)
    name, field = (match[1], match[3]) if match else (path, None)
    if name.endswith("]") and "[" in name:
        name, _, text = name[:-1].rpartition("[")
        return Part(name, text, field)
    return Part(name, None, field)


def _open(client: Client, path: str) -> tuple[Array | Frame | File, Part]:
    part = split(path)
    name = part.path
    if name and "/" not in name:
        raise NotFound(name, f"{name!r} is a root: name a dataset in it, as cat2 list {name} prints them")
    try:
        dataset = client[name]
    except NotFound:
        if name == path or (dataset := client.get(path)) is None:
            raise
        part = Part(path)
    if not isinstance(dataset, Array | Frame | File):
        raise is_a_directory(part.path)
    return dataset, part


def _check_field(array: Array, field: str | None) -> None:
    names = array.dtype.names or ()
    if field is not None and field not in names:
        has = f"it has {', '.join(names)}" if names else f"its elements are {array.dtype}"
        raise InvalidSelection(f"{array.path} has no field {field!r}: {has}")


def _of_field(values: npt.NDArray[Any], field: str | None) -> npt.NDArray[Any]:
    return values if field is None else values[field]


# -- arrays --------------------------------------------------------------------------------------


def _print_array_json(array: Array, selection: Selection, field: str | None) -> None:
    if selection.size > JSON_ELEMENTS:
        raise BadRequest(
            f"{array.path}: {selection.size:,} elements are too many for --json (at most {JSON_ELEMENTS:,}); "
            f"select a part: '{array.path}[...]'"
        )
    from caterva2.cli.values import json_values

    print_json(json_values(_of_field(array.read(selection), field)))


def _summary(array: Array, selection: Selection, field: str | None) -> str:
    """Return what numpy prints of a selection, for which only its corners are fetched if it is large."""
    import numpy as np

    if selection.size <= SUMMARY_ELEMENTS:
        values = _of_field(array.read(selection), field)
        return np.array2string(values, max_line_width=width(), threshold=sys.maxsize)
    corners = _of_field(_corners(array, selection), field)
    return np.array2string(corners, max_line_width=width(), threshold=0, edgeitems=EDGE)


def _corners(array: Array, selection: Selection) -> npt.NDArray[Any]:
    """Return the corners of a selection, with one filler between the ends of each long dimension.

    numpy prints ``...`` in place of the filler, and looks at the corners alone to choose a format.
    """
    import numpy as np

    pieces = [list(_ends(axis)) for axis in selection.axes]
    if 2 ** sum(len(ends) > 1 for ends in pieces) > CORNERS:
        raise InvalidSelection(f"{array.path} has too many dimensions for a summary: select a part of it")
    shape = [2 * EDGE + 1 if len(ends) > 1 else ends[0][0].count for ends in pieces]
    result = np.zeros(shape, array.dtype)
    for combination in itertools.product(*pieces):
        part = Selection(tuple(axis for axis, _ in combination))
        values = array.read(Selection(tuple(_kept(axis) for axis in part.axes)))
        result[tuple(target for _, target in combination)] = values
    drop = tuple(0 if axis.drop else slice(None) for axis in selection.axes)
    return np.asarray(result[drop])


def _ends(axis: Axis) -> Iterator[tuple[Axis, slice]]:
    """Yield the parts of an axis that are shown, in the order of the result, and where they go."""
    if axis.count <= 2 * EDGE:
        yield axis, slice(None)
        return
    low = Axis(axis.start, EDGE, axis.step, axis.reverse)
    high = Axis(axis.start + (axis.count - EDGE) * axis.step, EDGE, axis.step, axis.reverse)
    first, last = (high, low) if axis.reverse else (low, high)
    yield first, slice(0, EDGE)
    yield last, slice(EDGE + 1, None)


def _kept(axis: Axis) -> Axis:
    return Axis(axis.start, axis.count, axis.step, axis.reverse)


# -- frames and files ----------------------------------------------------------------------------


def _show_bytes(dataset: Frame | File, text: str | None, *, json: bool) -> None:
    typesize = dataset.typesize if isinstance(dataset, Frame) else 1
    axis = parse_selection(text, [len(dataset)]).axes[0]
    if axis.step != 1 or axis.reverse:
        raise InvalidSelection(f"{dataset.path} is a {dataset.kind}: it is read in steps of 1")
    count = axis.count
    if text is None and not json:
        count = min(count, max(1, HEAD_BYTES // typesize))
    if json and count * typesize > JSON_ELEMENTS:
        raise BadRequest(
            f"{dataset.path}: {count * typesize:,} bytes are too many for --json (at most {JSON_ELEMENTS:,})"
            f"; select a part: '{dataset.path}[0:100]'"
        )
    data = dataset[axis.start : axis.start + count] if count else b""
    if json:
        print_json(base64.b64encode(data).decode())
        return
    _print_bytes(data, axis.start * typesize)
    if count < axis.count:
        rest = (axis.count - count) * typesize
        print(f"… {rest:,} bytes more: cat2 download {dataset.path}", file=sys.stderr)


def _print_bytes(data: bytes, offset: int) -> None:
    """Print text as text, anything else as a hexadecimal dump."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # a character may be cut by the end of what is shown
        text = data[: error.start].decode() if len(data) - error.start < 4 else ""
    if text and all(char.isprintable() or char in "\n\t\r" for char in text):
        print(text, end="" if text.endswith("\n") else "\n")
        return
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        print(f"{offset + start:08x}  {row.hex(' '):<47}  {shown}")

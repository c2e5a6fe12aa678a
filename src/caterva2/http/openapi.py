"""The OpenAPI description of the plain routes, beside what FastAPI makes of the others."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from caterva2.http.problems import MEDIA_TYPE
from caterva2.http.slices import Query

__all__ = ["describe"]

_PATH = {
    "name": "path",
    "in": "path",
    "required": True,
    "description": "root/dir/name; its slashes may be sent as they are",
    "schema": {"type": "string", "minLength": 1},
    "example": "foo/dir1/ds-2d.b2nd",
}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def _parameter(name: str, where: str, description: str, **schema: Any) -> dict[str, Any]:
    schema = {"type": "string", **schema}
    required = name == "nchunk"
    return {"name": name, "in": where, "description": description, "required": required, "schema": schema}


_IF_MATCH = _parameter("If-Match", "header", "The version wanted: its etag in quotes")
_IF_NONE_MATCH = _parameter("If-None-Match", "header", "Versions that the client has")
_CACHE_CONTROL = _parameter("Cache-Control", "header", "only-if-cached: what is here, asking nobody")
_IF_RANGE = _parameter("If-Range", "header", "Ranges of this version only; else the whole of another")
_VERSION = _parameter("version", "query", "The version wanted: its etag; the answer can be kept for good")
_RANGE = _parameter("Range", "header", "Up to 64 byte ranges", example="bytes=0-99,200-299")
_QUERY = [
    _parameter(
        "slice_", "query", "Integers (which drop their dimension) and slices", example="10:20, 5, ::2"
    ),
    _parameter("indices", "query", "JSON, one entry for each dimension: integer, list, 'a:b' or null"),
    _parameter("field", "query", "Field of a structured dtype"),
]

_Operation = tuple[str, dict[str, str], str, list[dict[str, Any]], dict[str, Any]]
_OPERATIONS: dict[str, _Operation] = {
    # path: method, statuses, summary, parameters, content
    "/api/info/{path}": (
        "get",
        {"200": "Metadata", "304": "Known already"},
        "Metadata of a dataset",
        [_VERSION, _IF_MATCH, _IF_NONE_MATCH],
        {"application/json": {"schema": {"type": "object"}}},
    ),
    "/api/manifest/{path}": (
        "get",
        {"200": "MessagePack", "304": "Known already"},
        "The head, or pages, of a version's manifest",
        [
            _VERSION,
            _IF_MATCH,
            _IF_NONE_MATCH,
            _CACHE_CONTROL,
            _parameter("pages", "query", "Numbers of pages", example="1,4,7-9"),
            _parameter("known", "query", "For each page, a digest of what is known of it, or nothing"),
        ],
        {"application/vnd.caterva2.manifest+msgpack": {"schema": {"type": "string", "format": "binary"}}},
    ),
    "/data/{path}": (
        "get",
        {"200": "The whole file", "206": "Ranges of it", "304": "Known already"},
        "The stored bytes",
        [_VERSION, _IF_MATCH, _IF_NONE_MATCH, _RANGE, _IF_RANGE, _CACHE_CONTROL],
        _BYTES,
    ),
    "/api/download/{path}": (
        "get",
        {"200": "The whole file", "206": "Ranges of it", "304": "Known already"},
        "The stored bytes, to be saved under the name of the dataset",
        [_VERSION, _IF_MATCH, _IF_NONE_MATCH, _RANGE, _IF_RANGE, _CACHE_CONTROL],
        _BYTES,
    ),
    "/api/fetch/{path}": (
        "get",
        {"200": "The slice", "206": "Ranges of the stored bytes", "304": "Known already"},
        "A part of an array, a frame or a file",
        [_VERSION, _IF_MATCH, _IF_NONE_MATCH, _RANGE, *_QUERY],
        _BYTES
        | {
            "application/x-npy": {},
            "application/vnd.caterva2.raw": {},
            "application/vnd.caterva2.blocks": {},
        },
    ),
    "/api/chunk/{path}": (
        "get",
        {"200": "The chunk", "304": "Known already"},
        "One compressed chunk, as stored",
        [
            _VERSION,
            _IF_MATCH,
            _IF_NONE_MATCH,
            _parameter("nchunk", "query", "Number of the chunk", type="integer"),
        ],
        _BYTES,
    ),
}

_ERRORS = {
    "400": "Malformed",
    "401": "The token is missing or wrong",
    "404": "There is no such dataset",
    "408": "The body of the request did not arrive",
    "412": "The version wanted is not the current one",
    "413": "The answer would be too large",
    "416": "Not a range of the file",
    "422": "The stored bytes are not what their format says",
    "501": "The data cannot be decoded here",
    "502": "The source sent wrong bytes",
    "503": "Whoever has the data cannot be reached now",
    "504": "It is not here, and nobody else was to be asked",
}


def describe(app: FastAPI, *, with_data: bool) -> None:
    """Make an app's OpenAPI document complete.

    Parameters
    ----------
    app : FastAPI
    with_data : bool
        The app has the data routes.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            for operations in schema["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)  # malformed requests are a 400 here
                    operation["responses"] |= _problems()
            if with_data:
                schema["paths"] |= _data_paths()
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation does it


def _problems() -> dict[str, Any]:
    return {
        status: {"description": text, "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}
        for status, text in _ERRORS.items()
    }


def _data_paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for path, (method, statuses, summary, parameters, content) in _OPERATIONS.items():
        responses: dict[str, Any] = {
            status: {"description": text} | ({"content": content} if status != "304" else {})
            for status, text in statuses.items()
        }
        operation = {
            "summary": summary,
            "tags": ["data"],
            "parameters": [_PATH, *parameters],
            "responses": responses | _problems(),
        }
        paths[path] = {method: operation}
        if path.startswith(("/data/", "/api/download/")):
            paths[path]["head"] = operation | {"summary": "The headers of the stored bytes"}
    post = dict(paths["/api/fetch/{path}"]["get"])
    post["parameters"] = [_PATH, _VERSION, _IF_MATCH, _IF_NONE_MATCH]
    post["requestBody"] = {"content": {"application/json": {"schema": Query.model_json_schema()}}}
    paths["/api/fetch/{path}"]["post"] = post
    return paths

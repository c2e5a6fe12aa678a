from __future__ import annotations

import json

import pytest


@pytest.fixture
async def description(running) -> dict:
    return json.loads((await running.get("/openapi.json"))[2])


async def test_each_operation_names_its_path_parameters(description) -> None:
    for path, operations in description["paths"].items():
        for operation in operations.values():
            named = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path


async def test_each_operation_says_how_it_fails(description) -> None:
    for path, operations in description["paths"].items():
        for operation in operations.values():
            problems = {code for code in operation["responses"] if code >= "400"}
            assert {"400", "401", "404", "413", "503"} <= problems, path
            for code in problems:
                assert list(operation["responses"][code]["content"]) == ["application/problem+json"]


async def test_the_methods_described_are_those_that_are_there(running, description) -> None:
    for path, operations in description["paths"].items():
        if path == "/api/events":  # a stream has no end
            continue
        for method in ("get", "head", "post", "put", "delete"):
            status, headers, _ = await running.get(path.replace("{", "").replace("}", ""), method.upper())
            if method in operations:
                assert status != 405, (method, path)
            elif method not in ("head", "get"):
                assert (status, method.upper() in headers["Allow"]) == (405, False), (method, path)


async def test_the_body_of_a_question_is_described(description) -> None:
    body = description["paths"]["/api/fetch/{path}"]["post"]["requestBody"]
    assert set(body["content"]["application/json"]["schema"]["properties"]) == {"slice_", "indices", "field"}

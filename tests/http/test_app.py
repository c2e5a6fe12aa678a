from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize(
    "target", ["/health", "/metrics", "/docs", "/openapi.json", "/api/roots", "/data/foo/empty", "/nothing"]
)
async def test_every_request_needs_the_token(guarded, target) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic correct-horse"}):
        status, problem = await guarded.problem(target, headers=headers)
        assert (status, problem["type"]) == (401, "urn:caterva2:problem:unauthorized")
    status, _, _ = await guarded.get(target, headers={"Authorization": "Bearer correct-horse"})
    assert status == (404 if target == "/nothing" else 200)


async def test_health(running) -> None:
    status, _, body = await running.get("/health")
    assert status == 200
    assert json.loads(body)["status"] == "ok"


async def test_metrics_count_requests_and_bytes_by_route(running) -> None:
    for _ in range(3):
        await running.get("/data/foo/f.b2frame", headers={"Range": "bytes=0-99"})
    await running.get("/data/foo/nothing")
    text = (await running.get("/metrics"))[2].decode()
    assert 'caterva2_test_requests_total{method="GET",route="/data/",status="206"} 3.0' in text
    assert 'route="/data/",status="404"} 1.0' in text
    assert 'caterva2_test_sent_bytes_total{route="/data/"}' in text


async def test_the_description_covers_every_route(running) -> None:
    paths = json.loads((await running.get("/openapi.json"))[2])["paths"]
    routes = {"info", "manifest", "fetch", "chunk", "download", "list"}
    assert {f"/api/{name}/{{path}}" for name in routes} | {"/data/{path}", "/api/roots"} <= set(paths)
    assert set(paths["/api/fetch/{path}"]) == {"get", "post"}


async def test_an_unexpected_error_is_a_problem_without_its_details(running, files, monkeypatch) -> None:
    async def head(path, etag=None):
        raise RuntimeError("secret /etc/path")

    monkeypatch.setattr(files, "head", head)
    status, problem = await running.problem("/api/info/foo/empty")
    assert status == 500
    assert "secret" not in json.dumps(problem)

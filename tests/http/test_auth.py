from __future__ import annotations

import pytest

from caterva2.config import Token
from caterva2.http.auth import TokenMiddleware


@pytest.mark.parametrize("value", ["Bearer correct-horse", "bearer correct-horse", "BEARER  correct-horse "])
async def test_the_bearer_may_ask(guarded, value) -> None:
    assert (await guarded.get("/health", headers={"Authorization": value}))[0] == 200


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "correct-horse",
        "Token correct-horse",
        "Bearer correct-horse x",
        "Bearer correct-hors",
        "Bearer \xe9",
        "Bearercorrect-horse",
    ],
)
async def test_nobody_else_may(guarded, value) -> None:
    status, headers, _ = await guarded.get("/health", headers={"Authorization": value})
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (await guarded.get("/health", cookies={"Authorization": "Bearer correct-horse"}))[0] == 401
    assert (await guarded.get("/health?token=correct-horse"))[0] == 401


async def test_an_empty_token_lets_nobody_in() -> None:
    sent = []

    async def app(scope, receive, send) -> None:
        raise AssertionError("it was let in")

    async def send(message) -> None:
        sent.append(message)

    for headers in ([], [(b"authorization", b"Bearer ")]):
        await TokenMiddleware(app, [Token("")])({"type": "http", "headers": headers}, None, send)
    assert [m["status"] for m in sent if "status" in m] == [401, 401]


async def test_either_of_two_tokens_will_do() -> None:
    let_in = []

    async def app(scope, receive, send) -> None:
        let_in.append(scope["headers"][0][1])

    async def send(message) -> None:
        pass

    guarded = TokenMiddleware(app, [Token("correct-horse"), Token("battery-staple")])
    for value in (b"Bearer correct-horse", b"Bearer battery-staple", b"Bearer correct-staple"):
        await guarded({"type": "http", "headers": [(b"authorization", value)]}, None, send)
    assert let_in == [b"Bearer correct-horse", b"Bearer battery-staple"]

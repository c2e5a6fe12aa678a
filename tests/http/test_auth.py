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


LOGIN = "/auth/jwt/login"


async def test_who_logs_in_with_the_token_as_password_gets_a_cookie(guarded) -> None:
    form = {"username": "anybody", "password": "correct-horse"}
    status, headers, body = await guarded.get(LOGIN, "POST", data=form)
    assert (status, body) == (204, b"")
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=strict"} <= set(attributes)
    assert (await guarded.get("/health", headers={"Cookie": f"other=1; {cookie}"}))[0] == 200


@pytest.mark.parametrize("form", [{}, {"password": ""}, {"username": "correct-horse"}, {"password": "wrong"}])
async def test_who_has_no_token_cannot_log_in(guarded, form) -> None:
    status, headers, _ = await guarded.get(LOGIN, "POST", data=form)
    assert (status, headers.get("Set-Cookie")) == (401, None)


async def test_a_body_that_is_no_form_is_no_login(guarded) -> None:
    assert (await guarded.get(LOGIN, "POST", data=b"\xff&&=%zz"))[0] == 401
    assert (await guarded.get(LOGIN))[0] == 405


@pytest.mark.parametrize("cookie", ["caterva2=", "caterva2=wrong", "caterva2", "other=correct-horse", ";;="])
async def test_other_cookies_let_nobody_in(guarded, cookie) -> None:
    assert (await guarded.get("/health", headers={"Cookie": cookie}))[0] == 401


async def test_a_header_counts_more_than_a_cookie(guarded) -> None:
    headers = {"Authorization": "Bearer wrong", "Cookie": "caterva2=correct-horse"}
    assert (await guarded.get("/health", headers=headers))[0] == 401


async def test_a_token_of_any_characters_survives_the_cookie(files, serve) -> None:
    token = Token('a;b,c=%41"\\d')
    async for one in serve(files, token):
        _, headers, _ = await one.get(LOGIN, "POST", data={"password": str.__str__(token)})
        cookie = headers["Set-Cookie"].split(";")[0]
        assert (await one.get("/health", headers={"Cookie": cookie}))[0] == 200


async def test_where_no_token_is_needed_there_is_no_login(running) -> None:
    assert (await running.problem(LOGIN, "POST", data={"password": "x"}))[0] == 404

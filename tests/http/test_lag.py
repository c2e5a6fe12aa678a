"""How late the event loop is, as it tells itself and Prometheus."""

from __future__ import annotations

import asyncio
import time

from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import PlainTextResponse

from caterva2.config import Address
from caterva2.http.events import EventStreams
from caterva2.http.lag import BUSY_S, IDLE_S, LoopLag
from caterva2.http.metrics import Metrics
from caterva2.http.server import Server
from caterva2.model.catalogue import Catalogue
from caterva2.testing.waiting import until

BLOCK_S = 0.1


async def test_it_notes_for_how_long_the_loop_was_blocked() -> None:
    lags: list[float] = []
    with LoopLag(lags.append, lambda: True) as lag:
        await until(lambda: lags, 10)
        time.sleep(BLOCK_S)
        await until(lambda: max(lags) > BLOCK_S - 2 * BUSY_S, 10)
        assert lag.longest_s == max(lags)


async def test_it_looks_seldom_while_there_is_nothing_to_do_and_the_loop_is_in_time() -> None:
    loop = asyncio.get_running_loop()
    pauses: list[float] = []

    class Loop:
        def call_later(self, pause_s: float, *rest) -> asyncio.TimerHandle:
            pauses.append(pause_s)
            return loop.call_later(0, *rest)

    busy = True
    lag = LoopLag(lambda _: None, lambda: busy)
    lag._loop = Loop()
    lag._ask(often=True)
    lag._look(time.monotonic())
    busy = False
    lag._look(time.monotonic())
    lag._look(time.monotonic() - 1)
    lag._timer.cancel()
    assert pauses == [BUSY_S, BUSY_S, IDLE_S, BUSY_S]


async def test_it_stops_with_its_owner() -> None:
    lags: list[float] = []
    with LoopLag(lags.append, lambda: True):
        await until(lambda: lags, 10)
    seen = len(lags)
    await asyncio.sleep(3 * BUSY_S)
    assert len(lags) == seen


async def test_a_server_exports_it() -> None:
    metrics, streams = Metrics("x"), EventStreams(Catalogue())

    async def app(scope, receive, send) -> None:
        time.sleep(BLOCK_S)
        await PlainTextResponse("ok")(scope, receive, send)

    async with Server(app, Address("127.0.0.1", 0)) as server:
        with metrics.watch_loop(server, streams):
            async with asyncio.timeout(10):
                while _longest(metrics) < BLOCK_S / 2:  # between two requests it looks seldom
                    await _get(server.address)


def _longest(metrics: Metrics) -> float:
    found = {f.name: f for f in text_string_to_metric_families(metrics.render().decode())}
    buckets = {s.labels.get("le"): s.value for s in found["caterva2_x_loop_lag_seconds"].samples}
    longest = found["caterva2_x_loop_lag_max_seconds"].samples[0].value
    assert (longest > 0.05) == (buckets["+Inf"] > buckets["0.05"])
    return longest


async def _get(address: Address) -> None:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    await writer.wait_closed()

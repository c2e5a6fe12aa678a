"""What is written together, on a real connection."""

import asyncio

import pytest

from caterva2.http.together import JOINED_BYTES, Together


class Noted(asyncio.Transport):
    """Notes each write, as one that gives all to the system at once."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = []

    def write(self, data):
        self.writes.append(bytes(data))

    def writelines(self, parts):
        self.writes.append(b"".join(parts))

    def close(self):
        self.writes.append(None)


@pytest.fixture
async def noted():
    return Noted()


@pytest.fixture
async def out(noted):
    return Together(noted, asyncio.get_running_loop())


@pytest.mark.parametrize("size", [1, JOINED_BYTES, JOINED_BYTES + 1])
async def test_head_and_body_are_one_write(out, noted, size) -> None:
    for _ in range(2):
        out.write(b"head")
        out.write(bytes(size))
        out.write(b"more")
        out.begin()
    assert noted.writes == [b"head" + bytes(size), b"more"] * 2


async def test_a_head_does_not_wait_for_a_body_that_comes_later(out, noted) -> None:
    out.write(b"head")
    assert not noted.writes
    await asyncio.sleep(0)
    assert noted.writes == [b"head"]
    out.write(b"body")
    assert noted.writes == [b"head", b"body"]


async def test_a_head_alone_is_written_before_the_connection_is_closed(out, noted) -> None:
    out.write(b"head")
    out.close()
    await asyncio.sleep(0)
    assert noted.writes == [b"head", None]

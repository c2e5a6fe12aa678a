import numpy as np
import pytest

from caterva2.errors import Changed, IntegrityError, Unavailable, Unsupported
from caterva2.frame.write import write_array
from caterva2.model.path import DatasetPath
from caterva2.model.selection import parse_selection
from caterva2.source.maker import content_digest
from caterva2.testing.faults import Fault

ARRAY = np.random.default_rng(2).integers(0, 1000, (60, 200, 300), np.int32)
CUBE = DatasetPath("foo", "dir/cube é.b2nd")


@pytest.fixture
async def cube(tmp_path, server, source):
    write_array(tmp_path / "a.b2nd", ARRAY, chunks=(16, 64, 100), blocks=(4, 32, 50))
    server.source.publish(CUBE, (tmp_path / "a.b2nd").read_bytes())
    return await source.head(CUBE)


@pytest.mark.parametrize("text", ["3, 3, 3", "7", ":, 5", "::7, 1:100, ::-3", "", "2:3, 5, ::100"])
async def test_elements(source, cube, text):
    selection = parse_selection(text, ARRAY.shape)
    made = await source.make(cube, selection)
    out = made.decode(cube)
    order = tuple(slice(None, None, -1 if axis.reverse else 1) for axis in selection.axes)
    np.testing.assert_array_equal(out[order].reshape(selection.shape), eval(f"ARRAY[{text or '...'}]"))
    assert source.stats.bytes > made.nbytes > 0


async def test_large_ones_come_in_parts_each_asked_for_by_version(server, source, cube):
    server.seen.clear()
    made = await source.make(cube, parse_selection("", ARRAY.shape))
    assert len(made.parts) == len(server.seen) > 4
    assert all(seen.query.endswith(f"version={cube.etag}") for seen in server.seen)
    assert server.most_at_once > 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("flip", IntegrityError),
        ("junk", IntegrityError),
        ("no-digest", Unsupported),
        ("503", Unavailable),
        ("500", Unavailable),
        ("etag", Changed),
    ],
)
async def test_what_is_wrong_is_refused(server, source, cube, kind, error):
    server.faults.append(Fault(kind, times=2, route="/api/fetch/"))
    with pytest.raises(error):
        await source.make(cube, parse_selection("7", ARRAY.shape))


async def test_an_answer_that_breaks_off_is_asked_for_again(server, source, cube):
    server.faults.append(Fault("truncate", route="/api/fetch/"))
    await source.make(cube, parse_selection("7", ARRAY.shape))
    assert source.stats.retries == 1


async def test_a_version_that_is_gone(server, source, cube):
    server.source.publish(CUBE, server.source.data[CUBE])
    with pytest.raises(Changed):
        await source.make(cube, parse_selection("7", ARRAY.shape))


def test_the_digest_is_that_of_the_rfc():
    # RFC 9530, appendix A
    body = b'{"hello": "world"}\n'
    assert content_digest(body) == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"

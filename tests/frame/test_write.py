"""Arrays that are put together of parts are what Blosc2 would have written."""

import blosc2
import numpy as np

from caterva2.frame.write import write_tiles
from caterva2.testing.samples import write_many

TILES = np.random.default_rng(1).integers(0, 9, (5, 4, 6), np.int16)


def laid_out(choice):
    """What an array of these tiles holds."""
    return TILES[choice].swapaxes(1, 2).reshape(choice.shape[0] * 4, choice.shape[1] * 6)


def test_tiles_are_read_by_blosc2_and_by_us(tmp_path, store):
    choice = np.random.default_rng(2).integers(0, len(TILES), (7, 3))
    file = write_tiles(tmp_path / "x.b2nd", TILES, choice)
    array = blosc2.open(str(file))
    assert (array.shape, array.chunks, array.dtype) == ((28, 18), (4, 6), np.int16)
    assert np.array_equal(array[:], laid_out(choice))
    assert array.schunk.cbytes == sum(len(array.schunk.get_chunk(n)) for n in range(choice.size))
    stored = store(file.read_bytes())
    stored.assert_covered()
    assert np.array_equal(stored[:], laid_out(choice))


def test_tiles_replace_a_file_at_once(tmp_path):
    file = write_tiles(tmp_path / "x.b2nd", TILES, np.zeros((2, 2), np.int64))
    write_tiles(file, TILES, np.ones((2, 2), np.int64))
    assert np.array_equal(blosc2.open(str(file))[:], laid_out(np.ones((2, 2), np.int64)))
    assert [path.name for path in tmp_path.iterdir()] == ["x.b2nd"]


def test_many_chunks_are_of_many_sizes(tmp_path):
    array = blosc2.open(str(write_many(tmp_path / "x.b2nd", (20, 30))))
    sizes = {len(array.schunk.get_chunk(n)) for n in range(600)}
    assert array.schunk.nchunks == 600
    assert len(sizes) > 200

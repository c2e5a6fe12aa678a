"""Fields of structured arrays: as numpy has them, and nothing else is sent."""

from __future__ import annotations

import numpy as np
import pytest

from caterva2.errors import InvalidSelection
from caterva2.frame.write import write_array

INNER = np.dtype([("x", "i2"), ("y", "f4", (3,))])
DTYPE = np.dtype([("id", "i4"), ("pos", "f8", (2,)), ("text", "S100"), ("inner", INNER), ("é", "M8[s]")])


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    table = np.zeros((40, 30), DTYPE)
    table["id"] = np.arange(1200).reshape(40, 30)
    table["pos"] = np.arange(2400).reshape(40, 30, 2)
    table["text"] = b"text"
    table["inner"]["x"] = table["id"] % 100
    table["inner"]["y"][..., 1] = table["id"]
    table["é"] = np.datetime64("2020-01-01") + table["id"].astype("m8[s]")
    return table


@pytest.fixture
def table(client, running, root, truth):
    if not (root / "table.b2nd").exists():
        write_array(root / "table.b2nd", truth, chunks=(10, 30))
        entries = running.cluster.subscriber.catalogue.roots["foo"].entries
        running.wait_for(lambda: "table.b2nd" in entries)
    return client["foo/table.b2nd"]


KEYS = [..., (), 3, (5, 7), slice(3, 30, 4), (slice(None, None, -1), 2), ([1, 5], [2, 0]), [7, 7]]


@pytest.mark.parametrize("name", DTYPE.names)
def test_a_field_is_what_numpy_gives(table, truth, name) -> None:
    field, expected = table[name], truth[name]
    assert (field.shape, field.dtype, field.ndim) == (expected.shape, expected.dtype, expected.ndim)
    assert (field.size, field.nbytes, len(field)) == (expected.size, expected.nbytes, len(expected))
    for key in (*KEYS, truth["id"] % 7 == 3):
        assert np.array_equal(field[key], expected[key]), key
    assert np.array_equal(np.asarray(field), expected)
    assert np.array_equal(np.stack(list(field)), expected)
    assert repr(field).startswith(f"<Field {name} of foo/table.b2nd: {expected.shape}")


def test_a_field_of_arrays_has_their_dimensions(table, truth) -> None:
    for key in ((3, 4, 1), (..., 0), (slice(2), 5, slice(None, None, -1)), (3, 4), (2, 3, slice(1, 1))):
        got, expected = table["pos"][key], truth["pos"][key]
        assert (np.shape(got), type(got)) == (np.shape(expected), type(expected)), key
        assert np.array_equal(got, expected), key
    with pytest.raises(InvalidSelection, match="read it whole"):
        table["pos"][..., [1]]


def test_a_field_of_a_field(table, truth) -> None:
    assert np.array_equal(table["inner"]["x"][3], truth["inner"]["x"][3])
    assert np.array_equal(table["inner"]["y"][3:5, 7], truth["inner"]["y"][3:5, 7])
    assert table.fields["inner"].fields["y"].shape == (40, 30, 3)
    assert list(table["inner"].fields) == ["x", "y"]


def test_fields_are_a_mapping(table, client) -> None:
    assert list(table.fields) == list(DTYPE.names)
    assert len(table.fields) == 5
    assert "id" in table.fields
    assert 3 not in table.fields
    assert table.fields.get("no") is None
    assert repr(table.fields) == "<Fields of foo/table.b2nd: id, pos, text, inner, é>"
    plain = client["foo/ints.b2nd"].fields
    assert (list(plain), len(plain)) == ([], 0)
    for wrong in (table, table["inner"], client["foo/ints.b2nd"]):
        with pytest.raises(InvalidSelection, match="no field 'no'"):
            wrong["no"]
    with pytest.raises(ValueError, match="copy"):
        np.asarray(table["id"], copy=False)


def test_only_the_field_is_sent(table) -> None:
    received = []
    read_version = table._ask

    def counted(request, info, read, **options):
        def read_and_count(body):
            received.append(int(body.headers["Content-Length"]))
            return read(body)

        return read_version(request, info, read_and_count, **options)

    table._ask = counted
    assert table["id"][:].nbytes == 4800
    assert sum(received) < 4800 + 500
    received.clear()
    assert table["id"][[3, 5]].nbytes == 2 * 30 * 4
    assert sum(received) < 2 * 30 * 4 + 500


def test_it_is_read_in_parts_of_what_the_service_reads(table, truth, monkeypatch) -> None:
    import caterva2.client.array as module

    monkeypatch.setattr(module, "PART_BYTES", 10 * 30 * DTYPE.itemsize)
    asked = []
    ask = table._ask
    table._ask = lambda request, *args, **options: asked.append(request) or ask(request, *args, **options)
    assert np.array_equal(table["id"][...], truth["id"])
    assert len(asked) == 4


def test_its_names_are_completed(table) -> None:
    assert table._ipython_key_completions_() == list(DTYPE.names)

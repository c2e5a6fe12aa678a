from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from caterva2.cli import main
from caterva2.cli.showing import split
from caterva2.client import Client
from caterva2.frame.write import write_array

CUBE = np.arange(40 * 50 * 60, dtype=np.float64).reshape(40, 50, 60) / 7


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("foo/x", ("foo/x", None, None)),
        ("foo/x[0, 1]", ("foo/x", "0, 1", None)),
        ("foo/x[]", ("foo/x", "", None)),
        ("foo/a[1].b2nd", ("foo/a[1].b2nd", None, None)),
        ("foo/a[1].b2nd[2]", ("foo/a[1].b2nd", "2", None)),
        ('foo/x["a"]', ("foo/x", None, "a")),
        ("foo/x[0, 1:]['a b']", ("foo/x", "0, 1:", "a b")),
    ],
)
def test_a_selection_is_the_last_pair_of_brackets(text, parts) -> None:
    assert split(text) == parts


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("0, 0, :5", (0, 0, slice(5))),
        ("-1, -1, -1", (-1, -1, -1)),
        ("::20, 3, ::-20", (slice(None, None, 20), 3, slice(None, None, -20))),
        ("5:5", (slice(5, 5),)),
    ],
)
def test_json_is_nested_lists(cat2, text, key) -> None:
    assert cat2("show", f"foo/cube.b2nd[{text}]", "--json") == CUBE[key].tolist()


def test_small_parts_are_printed_as_numpy_does(cat2) -> None:
    expected = np.array2string(CUBE[3, :2, :3], max_line_width=80)
    assert cat2("show", "foo/cube.b2nd[3, :2, :3]") == expected + "\n"


@pytest.mark.parametrize("text", ["", "[::-1]", "[5, ::2]", "[:, 7, 3:60]", "[:4]"])
def test_large_ones_are_summarised_as_numpy_does(cat2, text) -> None:
    part = eval(f"CUBE{text}" if text else "CUBE")
    expected = np.array2string(part, max_line_width=80, threshold=1000)
    assert cat2("show", f"foo/cube.b2nd{text}") == expected + "\n"


def test_a_summary_moves_its_corners_only(cat2, running) -> None:
    upstream = running.cluster.subscriber.origins.stats
    running.run(running.cluster.subscriber.source.drop(path_of("foo/cube.b2nd")))
    before = upstream.extents
    cat2("show", "foo/cube.b2nd")
    assert upstream.extents - before <= 16, "eight corners, each in a chunk of its own"


def path_of(text: str):
    from caterva2.model.path import parse_path

    return parse_path(text)


def test_what_is_replaced_between_its_metadata_and_its_elements_is_read_anew(
    cat2, running, root, monkeypatch
) -> None:
    file = root / "overtaken.b2nd"
    write_array(file, np.full(1000, 1), chunks=[100])
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: file.name in entries)
    asked, info = [], Client.info

    def replaced_meanwhile(client, path):
        asked.append(info(client, path))
        if len(asked) == 1:
            write_array(file, np.full(1000, 2), chunks=[100])
            running.wait_for(lambda: entries[file.name].etag != asked[0]["etag"])
        return asked[-1]

    monkeypatch.setattr(Client, "info", replaced_meanwhile)
    assert cat2("show", "foo/overtaken.b2nd[500:502]", "--json") == [2, 2]
    assert len(asked) == 2


def test_too_much_for_json_is_refused(cat2) -> None:
    message = cat2("show", "foo/cube.b2nd", "--json", code=2)
    assert "120,000" in message


def test_odd_names_and_values(cat2) -> None:
    assert cat2("show", "foo/odd [1] é.b2nd[0]", "--json") == [1, 2]
    assert cat2("show", "foo/odd [1] é.b2nd", "--json") == [[1, 2], [None, 0]]


def test_files_and_frames(cat2) -> None:
    assert cat2("show", "foo/README.md").startswith("# An example root")
    assert cat2("show", "foo/ds-hello.b2frame[0:12]") == "Hello world!\n"
    dump = cat2("show", "foo/binary.bin[254:260]")
    assert dump == "000000fe  fe ff 00 01 02 03                                ......\n"
    assert base64.b64decode(cat2("show", "foo/binary.bin[:4]", "--json")) == bytes(4 * [0]).replace(
        bytes(4), bytes(range(4))
    )
    assert cat2("show", "foo/broken.b2nd") == "this is no frame\n"


@pytest.mark.parametrize("text", ["[40]", "[0,0,0,0]", "[x]", "[::0]", "[1:2:3:4]"])
def test_nonsense_is_a_usage_error(cat2, text) -> None:
    assert "cat2 info" in cat2("show", f"foo/cube.b2nd{text}", code=2)


def test_a_root_is_no_dataset(cat2) -> None:
    assert "cat2 list foo" in cat2("show", "foo", code=3)


def test_explained_is_how_the_data_was_had(cat2, capsys) -> None:
    cat2("cache", "drop", "foo/cube.b2nd")
    assert main(["show", "foo/cube.b2nd[30, 40:45, 50:55]", "--explain"]) == 0
    first = capsys.readouterr()
    assert first.out == np.array2string(CUBE[30, 40:45, 50:55], max_line_width=80) + "\n"
    assert re.match(r"(blocks|chunks|slice): .* in [0-9.]+ ms", first.err)
    assert main(["show", "foo/cube.b2nd[30, 40:45, 50:55]", "--explain"]) == 0
    assert capsys.readouterr().err == "cached: nothing was moved\n"
    assert main(["show", "foo/cube.b2nd[30, 40:45, 50:55]", "--explain", "--json"]) == 0
    found = json.loads(capsys.readouterr().err)
    assert found == {"choice": "cached", "estimates_ms": {}, "upstream_ms": 0.0, "upstream_bytes": 0}


DTYPES = {
    "bool": np.array([True, False]),
    "ints": np.array([-128, 127], "i1"),
    "uints": np.array([2**64 - 1, 0], "u8"),
    "big-endian": np.array([1, -2], ">i4"),
    "half": np.array([0.1, np.nan, np.inf], "f2"),
    "single": np.array([0.1, 1e-30], ">f4"),
    "longdouble": np.array([1.5, np.nan], np.longdouble),
    "complex": np.array([0.1 + 2j, np.nan], "c8"),
    "bytes": np.array([b"a\xff", b"\x1b[31m", b""], "S5"),
    "text": np.array(["é", "\x1b[31m", "日本", "\u202e"], "U5"),
    "big-endian text": np.array(["ab"], ">U3"),
    "raw": np.array([b"\x01\x02\x03"], "V3"),
    "days": np.array(["2026-01-02", "NaT"], "M8[D]"),
    "nanoseconds": np.array(["2026-01-02T03:04:05.123456789"], "M8[ns]"),
    "big-endian time": np.array(["2026-01-02", "NaT"], ">M8[D]"),
    "span": np.array([5, "NaT"], ">m8[s]"),
    "no dimensions": np.array(3.5),
    "empty": np.zeros((3, 0, 2), "U2"),
    "records": np.array(
        [(1, ("x", 2.5), [0.1, np.nan]), (2, ("\x1b[1m", 0), [0, 1])],
        [("n", "i4"), ("ïn", [("t", "U5"), ("y", ">f8")]), ("v", "f4", (2,))],
    ),
    "large": np.zeros((300, 50), [("a", "i4"), ("b", "U3")]),
}


@pytest.fixture(scope="module")
def of_dtypes(running, root):
    """A dataset for each kind of dtype."""
    (root / "dtypes").mkdir()
    for name, array in DTYPES.items():
        write_array(root / "dtypes" / f"{name}.b2nd", array)
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: all(f"dtypes/{name}.b2nd" in entries for name in DTYPES))
    yield
    for name in DTYPES:
        (root / "dtypes" / f"{name}.b2nd").unlink()
    running.wait_for(lambda: not any(name.startswith("dtypes/") for name in entries))


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_printed_as_numpy_does(cat2, of_dtypes, name) -> None:
    text = cat2("show", f"foo/dtypes/{name}.b2nd")
    expected = np.array2string(DTYPES[name], max_line_width=80, threshold=1000)
    assert text == expected + "\n"
    assert all(char.isprintable() or char == "\n" for char in text), "nothing controls the terminal"


@pytest.mark.parametrize("name", [name for name in DTYPES if name != "large"])
def test_every_dtype_has_json(cat2, of_dtypes, name) -> None:
    cat2("show", f"foo/dtypes/{name}.b2nd", "--json")


def test_json_says_what_is_meant(cat2, of_dtypes) -> None:
    def shown(name: str):
        return cat2("show", f"foo/dtypes/{name}", "--json")

    assert shown("half.b2nd") == [0.1, None, None]
    assert shown("single.b2nd") == [0.1, 1e-30]
    assert shown("complex.b2nd") == [[0.1, 2], [None, 0]]
    assert shown("big-endian time.b2nd") == ["2026-01-02", None]
    assert shown("span.b2nd") == [5, None]
    assert shown("empty.b2nd") == [[], [], []]
    assert shown("records.b2nd[1]") == {"n": 2, "ïn": {"t": "\x1b[1m", "y": 0}, "v": [0, 1]}


def test_a_field_of_a_structured_array(cat2, of_dtypes) -> None:
    assert cat2("show", 'foo/dtypes/records.b2nd["n"]') == "[1 2]\n"
    assert cat2("show", "foo/dtypes/records.b2nd[1]['v']", "--json") == [0, 1]
    assert cat2("show", 'foo/dtypes/large.b2nd["a"]').startswith("[[0 0 0 ... 0 0 0]")
    assert "it has n, ïn, v" in cat2("show", 'foo/dtypes/records.b2nd["m"]', code=2)
    assert "float64" in cat2("show", 'foo/cube.b2nd["a"]', code=2)
    assert "no fields" in cat2("show", 'foo/README.md["a"]', code=2)


def test_of_nothing_the_shape_is_said(cat2, of_dtypes, capsys) -> None:
    assert main(["show", "foo/dtypes/empty.b2nd"]) == 0
    assert "3 x 0 x 2" in capsys.readouterr().err

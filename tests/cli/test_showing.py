from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from caterva2.cli import main
from caterva2.cli.showing import split_selection
from caterva2.client import Client
from caterva2.frame.write import write_array

CUBE = np.arange(40 * 50 * 60, dtype=np.float64).reshape(40, 50, 60) / 7


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("foo/x", ("foo/x", None)),
        ("foo/x[0, 1]", ("foo/x", "0, 1")),
        ("foo/x[]", ("foo/x", "")),
        ("foo/a[1].b2nd", ("foo/a[1].b2nd", None)),
        ("foo/a[1].b2nd[2]", ("foo/a[1].b2nd", "2")),
    ],
)
def test_a_selection_is_the_last_pair_of_brackets(text, parts) -> None:
    assert split_selection(text) == parts


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

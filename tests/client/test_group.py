"""Roots and directories: mappings, trees, completion; and what notebooks show, without asking anybody."""

from __future__ import annotations

import html.parser
import xml.etree.ElementTree as ET

import pytest

from caterva2.client import Array, Client, Directory, File, Root
from caterva2.client.listing import names_below
from caterva2.client.picture import draw_grid
from caterva2.client.transport import Transport
from caterva2.errors import NotFound

DEEP = ("deep/a/x.bin", "deep/a/y.bin", "deep/b/c/z.bin", "deep/<b>&'.bin", "deeper.bin", "deep.bin")


@pytest.fixture(scope="module", autouse=True)
def _files(running, root) -> None:
    for name in DEEP:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"data")
    entries = running.cluster.subscriber.catalogue.roots["foo"].entries
    running.wait_for(lambda: set(DEEP) <= set(entries))


def test_a_directory_is_the_mapping_of_what_is_below_it(client) -> None:
    deep = client["foo/deep"]
    assert isinstance(deep, Directory)
    assert (deep.path, deep.name, repr(deep)) == ("foo/deep", "deep", "<Directory foo/deep>")
    assert list(deep) == ["<b>&'.bin", "a/x.bin", "a/y.bin", "b/c/z.bin"]
    assert len(deep) == 4
    assert isinstance(deep["a/x.bin"], File)
    assert isinstance(deep["b"], Directory)
    assert client["foo"]["deep"]["b"]["c"]["z.bin"].path == "foo/deep/b/c/z.bin"
    assert [name for name, _ in client["foo/deep/a"].items()] == ["x.bin", "y.bin"]
    assert [file.read() for file in client["foo/deep/a"].values()] == [b"data"] * 2
    assert "a" in deep
    assert "a/none" not in deep
    assert "a//x" not in deep
    assert deep.get("none", 3) == 3
    with pytest.raises(NotFound):
        client["foo/dee"]
    with pytest.raises(NotFound):
        deep["c"]


def test_a_listing_asks_for_what_is_below_a_directory_only(client, monkeypatch) -> None:
    monkeypatch.setattr("caterva2.client.protocol.PAGE_ROWS", 2)
    asked = []
    call = client._transport.call
    client._transport.call = lambda request, **options: asked.append(request) or call(request, **options)
    assert [row.path for row in client.list("foo/deep/a")] == ["foo/deep/a/x.bin", "foo/deep/a/y.bin"]
    assert len(asked) <= 2
    asked.clear()
    assert [row.path for row in client.list("foo/deep.bin")] == ["foo/deep.bin"]
    assert len(asked) == 2
    assert len(client.list("foo")) == len(client["foo"].list()) > 10


def test_a_tree_shows_what_there_is(client) -> None:
    assert str(client["foo/deep"].tree()) == "\n".join(
        [
            "foo/deep",
            "├── <b>&'.bin  file, 4 B",
            "├── a/",
            "│   ├── x.bin  file, 4 B",
            "│   └── y.bin  file, 4 B",
            "└── b/",
            "    └── c/",
            "        └── z.bin  file, 4 B",
        ]
    )
    assert str(client["foo/deep"].tree(level=1)) == "foo/deep\n├── <b>&'.bin  file, 4 B\n├── a/\n└── b/"
    whole = repr(client.tree())
    assert whole.startswith(f"{client.subscriber}\n└── foo  ")
    assert "    ├── bool.b2nd  3 bool, " in whole
    assert "    ├── broken.b2nd  47 B, unreadable: " in whole
    assert "60 x 50 int32" in str(client["foo"].tree())
    assert str(client.tree(level=1)).count("\n") == 1


def test_a_tree_ends_where_it_is_too_large(client, monkeypatch) -> None:
    monkeypatch.setattr("caterva2.client.protocol.PAGE_ROWS", 2)
    asked = []
    call = client._transport.call
    client._transport.call = lambda request, **options: asked.append(request) or call(request, **options)
    lines = str(client["foo"].tree(max_nodes=3)).splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("└── …  there are more: ask for a larger max_nodes")
    assert len(asked) == 3  # the root, and two pages


def test_keys_are_completed(client) -> None:
    names = client._ipython_key_completions_()
    assert {"foo", "foo/ints.b2nd", "foo/deep", "foo/deep/b/c", "foo/deep/b/c/z.bin"} <= set(names)
    client._transport.call = None  # they are kept for a moment
    assert client._ipython_key_completions_() == names


def test_keys_of_directories_are_completed(client) -> None:
    assert client["foo/deep"]._ipython_key_completions_() == [
        "<b>&'.bin", "a", "a/x.bin", "a/y.bin", "b", "b/c", "b/c/z.bin",
    ]  # fmt: skip
    assert {"ints.b2nd", "deep", "deep/a"} <= set(client["foo"]._ipython_key_completions_())
    assert len(names_below(client._transport, "foo", most=3)) <= 6


def test_completion_is_silent_where_nobody_answers() -> None:
    client = Client(Transport("http://127.0.0.1:1", None, 0.2))
    assert client._ipython_key_completions_() == []
    assert Directory(client, "foo/x")._ipython_key_completions_() == []


class Text(html.parser.HTMLParser):
    """Collects the text of a page, and checks that what is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.open = "", []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        pass

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += f"{data} "


def test_notebooks_show_what_is_known_and_ask_nobody(client) -> None:
    array = client["foo/cube.b2nd"]
    array[:3]
    array.refresh()
    shown = [
        array,
        client,
        client["foo"],
        client["foo/deep"],
        client["foo/f.b2frame"],
        client["foo/broken.b2nd"],
    ]
    tree = client["foo"].tree()
    client._transport.open = None  # nothing is asked from here on
    texts = [Text(one._repr_html_()).text for one in (*shown, tree)]
    for one in shown:
        assert "\n" not in repr(one)
    page, *_ = texts
    assert array._repr_html_().count("<svg") == 2  # its chunks, and how much of it is cached
    for word in ("Array foo/cube.b2nd", "12 x 10 x 14", "float32", "5 x 4 x 6", array.etag, "cached", "'K'"):
        assert word in page
    assert client.subscriber in texts[1]
    assert "online" in texts[2]
    assert "1,000 of 4 bytes" in texts[4]
    assert "unreadable" in texts[5]
    assert "cube.b2nd" in texts[6]


def test_what_others_named_is_escaped(client) -> None:
    evil = "<script>alert(1)</script>"
    info = client.info("foo/cube.b2nd") | {"path": f"foo/{evil}", "attrs": {evil: evil, "long": "x" * 10_000}}
    info |= {"etag": evil, "dtype": evil}
    page = Array(client._transport, info)._repr_html_()
    assert evil not in page
    assert len(page) < 10_000
    root = client["foo"]
    assert evil not in Directory(client, f"foo/{evil}")._repr_html_()
    assert "&lt;b&gt;&amp;&#x27;.bin" in client["foo/deep"].tree()._repr_html_()
    assert isinstance(root, Root)


@pytest.mark.parametrize(
    ("shape", "chunks", "lines"),
    [
        ((), (), None),
        ((0, 5), (1, 5), None),
        ((100,), (30,), 3),
        ((60, 50), (20, 25), 2 + 1),
        ((12, 10, 14), (5, 4, 6), 2 * (2 + 2 + 2)),
        ((7, 12, 10, 14), (1, 5, 4, 6), 2 * (2 + 2 + 2)),
        ((10**6, 10**9), (1, 1), 24 * 2),
        ((1, 1, 1), (1, 1, 1), 0),
    ],
    ids=str,
)
def test_the_drawing_has_the_cuts_between_chunks(shape, chunks, lines) -> None:
    drawing = draw_grid(shape, chunks)
    if lines is None:
        assert drawing == ""
        return
    svg = ET.fromstring(drawing)
    found = svg.findall("{http://www.w3.org/2000/svg}line")
    assert len(found) <= lines
    assert len(found) >= lines * 0.5
    width, height = float(svg.get("width")), float(svg.get("height"))
    for line in found:
        assert 0 <= float(line.get("x1")) <= width
        assert 0 <= float(line.get("y2")) <= height

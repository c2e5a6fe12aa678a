import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caterva2.bus import snapshot as module
from caterva2.bus.snapshot import Snapshots, take_snapshot
from caterva2.bus.view import Position
from caterva2.errors import Corrupt, Unavailable
from caterva2.model.catalogue import Catalogue
from caterva2.model.root import Entry

POSITION = Position("2026-01-01", 7, 1.5, ((6, "100"), (7, "101")))
ARRAY = Entry("e" * 32, 7, 1234, "array", 1764000000.123456, (3, 0, 5), "[('x', '<U3')]")
FILE = Entry("f" * 32, 8, 0, "file", 2.5, error="corrupt: \ud800 'é'\n")


def filled(entries, *roots):
    catalogue = Catalogue()
    for root in roots:
        via = ("t", "i")
        catalogue.set_root(root, url=f"http://{root}:1", title="Données", instance="i", origin="o", via=via)
        for name, entry in entries.items():
            catalogue.apply(root, name, entry)
    return catalogue


async def test_a_catalogue_is_the_same_after_it(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 2)
    entries = {"b é": FILE, "dir/a.b2nd": ARRAY} | {f"{n}": replace(ARRAY, generation=n) for n in range(4)}
    mine = filled(entries, "foo", "bar")
    mine.set_root("empty")
    theirs, events = Catalogue(), []
    theirs.listen(lambda event, _: events.append(event.kind))
    body = await Snapshots(mine, lambda: POSITION).body()
    assert await take_snapshot(body, theirs) == POSITION
    assert theirs.roots.keys() == {"foo", "bar", "empty"}
    for name, root in theirs.roots.items():
        assert root.entries == mine.root(name).entries
        assert (root.url, root.title, root.instance) == (
            mine.root(name).url,
            mine.root(name).title,
            mine.root(name).instance,
        )
        assert (root.origin, root.via) == (mine.root(name).origin, mine.root(name).via)
    assert events == ["created"] * 12


@given(st.floats(0, 4e9))
def test_times_are_exact(mtime):
    async def there_and_back():
        body = await Snapshots(filled({"x": replace(FILE, mtime=mtime)}, "foo"), lambda: POSITION).body()
        theirs = Catalogue()
        await take_snapshot(body, theirs)
        return theirs.root("foo").entries["x"].mtime

    assert asyncio.run(there_and_back()) == mtime


async def test_none_while_the_view_is_not_complete():
    with pytest.raises(Unavailable):
        await Snapshots(Catalogue(), lambda: None).body()


async def test_it_is_made_again_when_something_changed():
    catalogue = filled({"x": FILE}, "foo")
    position = POSITION
    snapshots = Snapshots(catalogue, lambda: position)
    first = await snapshots.body()
    assert await snapshots.body() == first
    catalogue.apply("foo", "y", ARRAY)
    position = POSITION._replace(revision=8)
    theirs = Catalogue()
    assert (await take_snapshot(await snapshots.body(), theirs)).revision == 8
    assert theirs.root("foo").entries == {"x": FILE, "y": ARRAY}


async def test_later_generations_are_kept():
    theirs = filled({"x": replace(FILE, generation=9)}, "foo")
    await take_snapshot(await Snapshots(filled({"x": FILE}, "foo"), lambda: POSITION).body(), theirs)
    assert theirs.root("foo").entries["x"].generation == 9


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b'["e", 7]',
        b'["e",7,1.5,[]]\n{}',
        b'["e",7,1.5,[]]\n["foo","u","t","i",7]',
        b'["e",7,1.5,[]]\n["../foo","u","t","i",[]]',
        b'["e",7,1.5,[]]\n["foo","u","t","i",[["x","etag",1,1,"file"]]]',
        b'["e",7,1.5,[]]\n["foo","u","t","i",[["../x","etag",1,1,"file",1.0,null,null,null]]]',
        b'["e",7,1.5,[]]\n["foo","u","t","i",[["x","etag",-1,1,"file",1.0,null,null,null]]]',
        b'["e",7,1.5,[]]\n["foo","u","t","i",[[7,"etag",1,1,"file",1.0,null,null,null]]]',
    ],
)
async def test_what_is_none_is_refused(body):
    catalogue = Catalogue()
    with pytest.raises(Corrupt):
        await take_snapshot(body, catalogue)
    assert all(not root.entries for root in catalogue.roots.values())

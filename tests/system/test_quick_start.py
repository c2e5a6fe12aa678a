"""The quick start of the documentation, as a user types it."""

from __future__ import annotations

import blosc2
import numpy as np

from caterva2.testing.samples import write_example
from caterva2.testing.waiting import wait_until


def test_the_quick_start(site) -> None:
    root = write_example(site.directory / "root-example")
    services = site.start_three(root)

    wait_until(lambda: site.json("roots") and site.json("roots")[0]["datasets"] == 6)
    (row,) = site.json("roots")
    assert row["root"] == "foo"
    assert row["state"] == "online"
    assert row["bytes"] == sum(file.stat().st_size for file in root.rglob("*") if file.is_file())

    names = ["README.md", "dir1/ds-2d.b2nd", "dir1/ds-3d.b2nd", "dir2/ds-4d.b2nd", "ds-1d.b2nd"]
    names.append("ds-hello.b2frame")
    listed = site.json("list", "foo")
    assert sorted(row["path"] for row in listed) == [f"foo/{name}" for name in names]
    kinds = {row["path"]: (row["kind"], row["shape"], row["dtype"]) for row in listed}
    assert kinds["foo/README.md"] == ("file", None, None)
    assert kinds["foo/ds-hello.b2frame"] == ("frame", None, None)
    assert kinds["foo/dir1/ds-2d.b2nd"] == ("array", [10, 20], "uint16")

    site.run("follow", "foo/ds-1d.b2nd")
    (followed,) = site.json("info")
    assert followed["path"] == "foo/ds-1d.b2nd"
    assert followed["freshness"] == "fresh"

    info = site.json("info", "foo/ds-1d.b2nd")
    assert (info["shape"], info["chunks"], info["blocks"]) == ([1000], [100], [10])

    assert site.json("show", "foo/dir1/ds-2d.b2nd[1, 3:6]") == [23, 24, 25]
    assert "0" in site.run("show", "foo/ds-1d.b2nd").stdout

    record = site.json("download", "foo/ds-1d.b2nd", "copies")
    copy = site.directory / record["file"]
    assert copy.read_bytes() == (root / "ds-1d.b2nd").read_bytes()
    assert copy.stat().st_mtime == (root / "ds-1d.b2nd").stat().st_mtime
    assert np.array_equal(blosc2.open(str(copy))[:], np.arange(1000))

    site.run("unfollow", "foo/ds-1d.b2nd")
    assert site.json("info") == []
    for service in reversed(services):
        assert service.stop() == 0


def test_one_command_is_enough(site) -> None:
    root = write_example(site.directory / "with space é")
    serve = site.start("serve", f"foo={root}", "--state", str(site.directory / "state"), "--port", "0")
    site.environment["CATERVA2_SUBSCRIBER"] = serve.url("subscriber")
    broker = serve.url("broker")
    wait_until(lambda: site.json("roots") and site.json("roots")[0]["datasets"] == 6)

    second = site.start(
        "subscriber", "--broker", broker, "--listen", "127.0.0.1:0", "--state", str(site.directory / "second")
    )
    url = second.url("subscriber")
    wait_until(lambda: site.json("roots", "--subscriber", url))
    assert site.json("show", "foo/ds-1d.b2nd[-1]", "--subscriber", url) == 999
    assert second.stop() == 0
    assert serve.stop() == 0

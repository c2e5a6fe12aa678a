"""``cat2 config``: all settings with their origins, and an example to begin with."""

from __future__ import annotations

from dataclasses import fields

import pytest

from caterva2 import config
from caterva2.cli import main
from caterva2.cli.configuration import PARTS


@pytest.fixture
def file(cat2, tmp_path, monkeypatch):
    file = tmp_path / "config.toml"
    monkeypatch.setenv("CATERVA2_CONFIG", str(file))
    for name in ("TOKEN", "BROKER", "BUS", "SUBSCRIBER"):
        monkeypatch.delenv(f"CATERVA2_{name}", raising=False)
    return file


def test_every_setting_is_shown(cat2, file) -> None:
    found = cat2("config", "--json")
    assert (found["file"], found["exists"]) == (str(file), False)
    names = [(row["section"], row["setting"]) for row in found["settings"]]
    assert names == [(part, field.name) for part, cls in PARTS.items() for field in fields(cls)]
    assert all(row["origin"] == "default" and row["value"] == row["default"] for row in found["settings"])
    assert {row["section"] for row in cat2("config", "broker", "--json")["settings"]} == {"broker"}


def test_origins_and_secrets(cat2, file, tmp_path, monkeypatch) -> None:
    (tmp_path / "token").write_text("s3cr3t-t0k3n")
    file.write_text('token_file = "token"\nbus = ["nats://me:s3cr3t@n1"]\n[publisher]\nsettle_s = 2\n')
    monkeypatch.setenv("CATERVA2_PUBLISHER_RESCAN_S", "60")
    found = {row["setting"]: row for row in cat2("config", "publisher", "--json")["settings"]}
    assert (found["settle_s"]["value"], found["settle_s"]["origin"]) == (2.0, "file")
    assert found["settle_s"]["where"] == f"{file} [publisher] settle_s"
    assert (found["rescan_s"]["value"], found["rescan_s"]["where"]) == (60.0, "CATERVA2_PUBLISHER_RESCAN_S")
    assert found["token"]["value"] == "…"
    assert found["bus"]["value"] == ["nats://…@n1"]
    text = cat2("config", "publisher")
    assert "file [publisher] settle_s" in text
    assert "s3cr3t" not in text


def test_what_is_wrong_is_shown_among_the_rest(cat2, file, capsys) -> None:
    file.write_text("[publisher]\nsettle_s = -1\nrescan_s = 60\n")
    assert main(["config", "publisher"]) == 2
    out, err = capsys.readouterr()
    assert "wrong" in out and "60.0" in out
    assert "settle_s: -1 is not a positive number" in err
    file.write_text('[publisher]\nlisten = "0.0.0.0:0"\n')
    assert main(["config", "publisher"]) == 2
    assert "without a token" in capsys.readouterr().err
    file.write_text("no toml")
    assert "cannot read" in cat2("config", code=2)


def test_the_example_is_a_file_that_can_be_used(cat2, file) -> None:
    example = cat2("config", "--example")
    assert all(
        f"#{field.name} =" in example
        for cls in PARTS.values()
        for field in fields(cls)
        if "token" not in field.name
    )
    file.write_text(example)
    for cls in PARTS.values():
        assert config.load(cls) == config.load(cls)
    lines = [line for line in example.splitlines() if not line.endswith("none by default")]
    file.write_text("\n".join(line.removeprefix("#") if line[1:2].isalpha() else line for line in lines))
    assert {row["value"] == row["default"] for row in cat2("config", "--json")["settings"]} == {True}

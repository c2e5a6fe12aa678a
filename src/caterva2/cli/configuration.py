"""``cat2 config``: every setting, its value, and where that comes from."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from json import dumps
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from caterva2 import config as settings
from caterva2.cli.exit_codes import ExitCode
from caterva2.cli.options import Json
from caterva2.cli.output import print_json, visible
from caterva2.cli.tables import print_table
from caterva2.config import Setting
from caterva2.errors import ConfigError

__all__ = ["PARTS", "config", "shown"]

PARTS: dict[str, type[settings.ServiceSettings | settings.ClientSettings]] = {
    "client": settings.ClientSettings,
    "broker": settings.BrokerSettings,
    "publisher": settings.PublisherSettings,
    "subscriber": settings.SubscriberSettings,
}
"""What has settings, by its section in the file."""

SECRET = "…"


def config(
    part: Annotated[
        Literal["client", "broker", "publisher", "subscriber"] | None,
        Parameter(help="Whose settings; by default those of all."),
    ] = None,
    /,
    *,
    example: Annotated[
        bool,
        Parameter(negative="", help="Print a configuration file to begin with, all of it commented out."),
    ] = False,
    json: Json = False,
    debug: Annotated[bool, Parameter(help="Show where an error came from.")] = False,  # noqa: ARG001
) -> int:
    """Show every setting, its value, its default, and where it comes from. Exit code 2 if one is wrong."""
    parts: list[str] = list(PARTS) if part is None else [part]
    if example:
        print("\n".join(_example(parts)))
        return ExitCode.OK
    file = settings.config_file()
    found = [(name, setting) for name in parts for setting in settings.explain(PARTS[name])]
    if json:
        rows = [_json_row(name, setting) for name, setting in found]
        print_json({"file": str(file), "exists": file.exists(), "settings": rows})
    else:
        there = "" if file.exists() else " (there is none: cat2 config --example prints one)"
        print(f"configuration file: {visible(str(file))}{there}", file=sys.stderr)
        columns = ("setting", "value", "from", "default")
        print_table(columns, [_row(name, setting, file) for name, setting in found])
    errors = [setting.error for _, setting in found if setting.error] or list(_together(parts))
    for error in dict.fromkeys(errors):
        print(f"cat2: {visible(error)}", file=sys.stderr)
    return ExitCode.USAGE if errors else ExitCode.OK


def _together(parts: list[str]) -> Iterator[str]:
    """Yield what is wrong with settings that are right each by itself."""
    for part in parts:
        try:
            settings.load(PARTS[part])
        except ConfigError as error:
            yield f"[{part}]: {error}"


def _row(part: str, setting: Setting, file: Path) -> tuple[str, ...]:
    origin = setting.where.replace(f"{file} ", "file ") or setting.origin
    value = "wrong" if setting.error else shown(setting, setting.value)
    default = "" if setting.origin == "default" else shown(setting, setting.default)
    return f"{part}.{setting.name}", value, origin, default


def _json_row(part: str, setting: Setting) -> dict[str, Any]:  # Any: JSON
    row = {
        "section": part,
        "setting": setting.name,
        "value": _json_value(setting, setting.value),
        "default": _json_value(setting, setting.default),
    }
    return row | {
        "origin": setting.origin,
        "where": setting.where or None,
        "variable": setting.variable,
        "error": setting.error,
    }


def _json_value(setting: Setting, value: object) -> Any:  # Any: JSON
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, tuple):
        return [_without_password(str(word)) for word in value]
    return shown(setting, value)


def shown(setting: Setting, value: object) -> str:
    """Return a value as it would be written, without what is secret."""
    if value is None:
        return ""
    if setting.secret:
        return SECRET
    if isinstance(value, tuple):
        return ",".join(_without_password(str(word)) for word in value)
    if isinstance(value, int) and setting.name.endswith("_bytes"):
        return _size(value)
    return _without_password(str(value))


def _without_password(url: str) -> str:
    return re.sub(r"^(\w+://)[^/@]+@", rf"\1{SECRET}@", url)


def _size(nbytes: int) -> str:
    """Return a size as the file takes it, exactly."""
    for base, infix in ((1024, "i"), (1000, "")):
        for power, letter in ((3, "G"), (2, "M"), (1, "K")):
            if nbytes and nbytes % base**power == 0:
                return f"{nbytes // base**power}{letter}{infix}B"
    return str(nbytes)


# -- an example ------------------------------------------------------------------------------------


def _example(parts: list[str]) -> Iterator[str]:
    """Yield the lines of a file in which nothing is set, but all is said."""
    yield "# Settings of Caterva2: a flag or the environment goes before this file."
    yield f"# It belongs at {settings.config_file()}"
    yield "#"
    yield "# What stands above the sections is shared by all parts; it can stand in a section as well."
    yield ""
    described = {name: text for part in parts for name, text in _descriptions(PARTS[part]).items()}
    of_parts = {part: settings.explain(PARTS[part]) for part in parts}
    everywhere = {one.name: one for found in of_parts.values() for one in found if _at_the_top(one)}
    for setting in everywhere.values():
        yield from _example_of(setting, described)
    for part, found in of_parts.items():
        yield f"[{part}]"
        for setting in found:
            if not _at_the_top(setting):
                yield from _example_of(setting, described)


def _at_the_top(setting: Setting) -> bool:
    """Whether it is best said once, for all; a URL there would keep out the section of its name."""
    return setting.name in settings.SHARED and setting.name not in PARTS


def _example_of(setting: Setting, described: dict[str, str]) -> Iterator[str]:
    for line in wrap(described.get(setting.name, ""), 96):
        yield f"# {line}"
    name = f"{setting.name}_file" if setting.secret else setting.name
    yield f"#{name} = {_toml(setting)}"
    yield ""


def _toml(setting: Setting) -> str:
    value = setting.default
    if value is None:
        return "  # none by default"
    if isinstance(value, int | float) and not setting.name.endswith("_bytes"):
        return str(value)
    return "[]" if value == () else dumps(shown(setting, value), ensure_ascii=False)


def _descriptions(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class of settings say of each field, in one line."""
    text = "\n".join(base.__doc__ or "" for base in reversed(cls.__mro__) if base is not object)
    found = dict(re.findall(r"^    ([\w, ]+) : [^\n]*\n((?:        [^\n]+\n)+)", text, re.MULTILINE))
    names = {field.name for field in fields(cls)}
    return {
        name: " ".join(description.split()).replace("``", "").replace("`", "")
        for group, description in found.items()
        for name in group.split(", ")
        if name in names
    }

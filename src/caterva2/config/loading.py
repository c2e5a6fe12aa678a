"""Finding settings: what was given where, and which of it counts. The only reader of the environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from caterva2.config.settings import ClientSettings, ServiceSettings
from caterva2.config.values import TOKENS, convert, read_token, without_none
from caterva2.errors import ConfigError

__all__ = ["SHARED", "Setting", "config_file", "explain", "load"]

SHARED = (
    "broker",
    "subscriber",
    "token",
    "bus",
    "bus_credentials",
    "bus_ca",
    "bus_certificate",
    "bus_key",
    "bus_replicas",
)
"""Fields whose environment variable is ``CATERVA2_<FIELD>`` and that stand at the top of the file."""

FLAGS = {"quota_bytes": "--quota"}
"""Fields that have another name on the command line."""

SECTIONS = ("broker", "publisher", "subscriber", "client")
"""Tables of the file."""

Settings = TypeVar("Settings", bound=ServiceSettings | ClientSettings)

Table = Mapping[str, Any]  # Any: what TOML has

_Candidate = tuple[Literal["flag", "environment", "file"], str, Any]
"""What may give a setting, where that is, and the value there, None if there is none."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting, and where its value comes from.

    Attributes
    ----------
    name : str
    value, default : object
        What holds, and what would if nothing had been said; the value is None where it is wrong.
    origin : {"default", "file", "environment", "flag"}
    where : str
        The variable of the environment, or the file and the name in it; empty for a default.
    variable : str
        The variable of the environment that sets it.
    secret : bool
        It is not to be shown.
    error : str or None
        What is wrong with what was given.
    file : Path or None
        What holds a token that is not given itself.
    """

    name: str
    value: object
    default: object
    origin: Literal["default", "file", "environment", "flag"]
    where: str
    variable: str
    secret: bool
    error: str | None = None
    file: Path | None = None


def config_file() -> Path:
    """Return where the configuration file is looked for: ``CATERVA2_CONFIG``, else the platform's place."""
    if given := os.environ.get("CATERVA2_CONFIG"):
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_config_dir("caterva2", appauthor=False)) / "config.toml"


def load(cls: type[Settings], **flags: Any) -> Settings:  # Any: flags are checked field by field
    """Return the settings of a service or the client.

    Parameters
    ----------
    cls : type
        One of the settings classes of this package.
    **flags
        Values from the command line, by field; None where none was given. ``token_file`` (or
        ``republish_token_file``) is the path of a file that holds the token.

    Raises
    ------
    ConfigError
        If a value is malformed or unsafe, a name in the file is unknown, or a file cannot be read.
    """
    values: dict[str, Any] = {}
    for setting in _settings(cls, flags):
        if setting.error is not None:
            raise ConfigError(setting.error)
        if setting.origin != "default":
            values[setting.name] = setting.value
    return cls(**values)


def explain(cls: type[Settings]) -> list[Setting]:
    """Return every setting of a service or the client with its origin, also where one is wrong.

    Raises
    ------
    ConfigError
        If the file cannot be read, or has names that are unknown.
    """
    return list(_settings(cls, {}))


def _settings(cls: type[Settings], flags: Mapping[str, Any]) -> Iterator[Setting]:
    hints = get_type_hints(cls)
    flags = _with_tokens(flags, Path.cwd())
    path = config_file()
    top, section = _file_tables(path, cls)
    for field in fields(cls):
        name = field.name
        shared = name in SHARED
        variable = (f"CATERVA2_{name}" if shared else f"CATERVA2_{cls.section}_{name}").upper()
        hint = hints[name]
        candidates: list[_Candidate] = [
            ("flag", FLAGS.get(name) or "--" + name.replace("_", "-"), flags.get(name)),
            ("environment", variable, os.environ.get(variable) or None),
            ("file", f"{path} [{cls.section}] {name}", _beside(path, section.get(name), hint)),
            ("file", f"{path} {name}", _beside(path, top.get(name), hint) if shared else None),
        ]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        setting = Setting(name, default, default, "default", "", variable, name in TOKENS)
        yield _first_of(candidates, setting, hint)


def _first_of(candidates: Sequence[_Candidate], otherwise: Setting, hint: Any) -> Setting:
    """Return a setting as the first says that says anything."""
    for origin, where, value in candidates:
        if value is None:
            continue
        found = replace(otherwise, value=None, origin=origin, where=where)
        if isinstance(value, _TokenFile):
            return _of_token_file(found, value.path)
        try:
            return replace(found, value=convert(otherwise.name, value, hint))
        except ConfigError as error:
            said = where if origin == "file" else f"{origin} {where}"
            return replace(found, error=f"{said}: {error}")
    return otherwise


@dataclass(frozen=True, slots=True)
class _TokenFile:
    """Stands for the token that a file holds: it is read only where nothing else goes before."""

    path: Path


def _of_token_file(found: Setting, path: Path) -> Setting:
    found = replace(found, where=f"{found.where}_file", file=path)
    try:
        return replace(found, value=read_token(path))
    except ConfigError as error:
        return replace(found, error=str(error))


# -- the file --------------------------------------------------------------------------------------


def _file_tables(path: Path, cls: type[Settings]) -> tuple[Table, Table]:
    """Return the top of the file, and the section of a class."""
    document = _document(path)
    top = {name: value for name, value in document.items() if not isinstance(value, dict)}
    _refuse_unknown(f"{path}", document, {*SHARED, *SECTIONS, "token_file"})
    section = document.get(cls.section, {})
    section = section if isinstance(section, dict) else {}  # the URL of that service, for the others
    known = {field.name for field in fields(cls)}
    _refuse_unknown(
        f"{path} [{cls.section}]", section, known | {f"{name}_file" for name in TOKENS if name in known}
    )
    return _with_tokens(top, path.parent), _with_tokens(section, path.parent)


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        hint = ""
        if "overwrite a value" in str(error):
            hint = "; beside a section of that name, a URL stands where it is used, such as [client]"
        raise ConfigError(f"cannot read {path}: {error}{hint}") from error


def _refuse_unknown(where: str, table: Table, known: set[str]) -> None:
    unknown = sorted(set(table) - known)
    if not unknown:
        return
    from difflib import get_close_matches

    near = [match for name in unknown for match in get_close_matches(name, known, n=1)]
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ConfigError(f"{where} has unknown settings: {', '.join(unknown)}{hint} (cat2 config lists all)")


def _with_tokens(given: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return what was given, with files that hold tokens under the names of the tokens."""
    values = dict(given)
    for token in TOKENS:
        if (file := values.pop(f"{token}_file", None)) is not None:
            values[token] = _TokenFile(directory / Path(file).expanduser())
    return values


def _beside(path: Path, value: Any, hint: Any) -> Any:
    """Return a value of the file; of paths that are relative, as they are meant: from its directory."""
    if without_none(hint) is Path and isinstance(value, str):
        return path.parent / Path(value).expanduser()
    return value

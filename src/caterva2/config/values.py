"""What the values of settings may be: addresses, sizes, tokens, URLs; as text and as what they mean."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin
from urllib.parse import urlsplit

from caterva2.errors import ConfigError

__all__ = [
    "TOKENS",
    "Address",
    "Token",
    "convert",
    "parse_address",
    "parse_size",
    "read_token",
    "same_url",
    "without_none",
]

TOKENS = ("token", "republish_token")
"""Fields that are secret, and may be given as the file that holds it."""

URLS = ("broker", "subscriber", "url", "republish_to", "republish_url")
"""Fields that are URLs of services."""


class Token(str):
    """A shared secret; it does not show itself in a repr, a log or a traceback of settings."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Token('…')"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Its URL for clients; one on this machine where it listens on every interface."""
        local = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
        return f"http://{Address(local.get(self.host, self.host), self.port)}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """Parse ``HOST:PORT``, with an IPv6 host in brackets.

    Raises
    ------
    ConfigError
        If it is malformed or the port is not 0 to 65535.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\s:\[\]/]+)):(\d{1,5})", text)
    if not match or int(match[3]) > 65535:
        raise ConfigError(f"{text!r} is not an address: write HOST:PORT, such as 127.0.0.1:8002")
    return Address(match[1] or match[2], int(match[3]))


_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}


def parse_size(value: str | int, least: int = 1) -> int:
    """Parse a size in bytes: ``10GB``, ``512MiB``, ``1.5T``, ``4096``.

    Raises
    ------
    ConfigError
        If it is malformed or smaller than `least`.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", str(value).upper())
    if not match:
        raise ConfigError(f"{value!r} is not a size: write 10GB, 512MiB or a number of bytes")
    unit = _UNITS[match[2]]
    if match[3]:
        unit = 1024 ** ("KMGT".index(match[2]) + 1) if match[2] else 1
    size = int(float(match[1]) * unit)
    if size < least:
        raise ConfigError(f"{value!r} is too small: at least {least}")
    return size


def read_token(path: Path) -> Token:
    """Return the token that a file holds.

    Raises
    ------
    ConfigError
        If it cannot be read, or holds no token.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"cannot read the token file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the token file {path} is no text") from error
    try:
        return _token(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _token(text: str) -> Token:
    if not re.fullmatch(r"[\x21-\x7e]{8,512}", text):
        raise ConfigError("a token is 8 to 512 printable ASCII characters without spaces")
    return Token(text)


def convert(name: str, value: Any, hint: Any) -> Any:  # Any: of the type that the hint says
    """Return the value of a setting as its type has it.

    Parameters
    ----------
    name : str
        Of the field.
    value : object
        As it was given: text, or what TOML has.
    hint : type
        Of the field.

    Raises
    ------
    ConfigError
        If it is malformed, or none of what is allowed.
    """
    hint = without_none(hint)
    if name in TOKENS:
        return _token(str(value))
    if hint is Address:
        return value if isinstance(value, Address) else parse_address(str(value))
    if hint is Path:
        return Path(str(value)).expanduser()
    if name.endswith("_bytes"):
        return parse_size(value, least=0 if name.startswith(("min_", "decoded_")) else 1)
    if get_origin(hint) is Literal:
        return _choice(value, get_args(hint))
    if get_origin(hint) is tuple:
        words = _words(value)
        return tuple(map(_check_bus, words)) if name == "bus" else words
    if hint in (int, float):
        return _number(value, hint)
    return _check_url(str(value)) if name in URLS else str(value)


def _choice(value: Any, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        raise ConfigError(f"{value!r} is none of {', '.join(choices)}")
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, str | Iterable):
        raise ConfigError(f"{value!r} is no list")
    parts = value.split(",") if isinstance(value, str) else map(str, value)
    return tuple(part.strip() for part in parts if part.strip())


def _number(value: Any, kind: type[int] | type[float]) -> int | float:
    try:
        number = kind(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{value!r} is not a {'whole ' if kind is int else ''}number") from None
    if not 0 < number < float("inf"):
        raise ConfigError(f"{value!r} is not a positive number")
    return number


def without_none(hint: Any) -> Any:
    """Return the type that a value has where there is one."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    return next((arg for arg in get_args(hint) if arg is not NoneType), hint)


def _check_bus(url: str) -> str:
    if not re.fullmatch(r"(nats|tls)://([^\s/@]+@)?[^\s/@]+/?", url):  # not shown: it may have a password
        raise ConfigError("not the URL of a NATS server, such as tls://n1.example.org:4222")
    return url


def _check_url(url: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@]+(/[^\s]*)?", url):
        raise ConfigError(f"{url!r} is not a URL such as http://127.0.0.1:8002")
    return url.rstrip("/")


def same_url(one: str, other: str) -> bool:
    """Return whether two URLs name the same, however they are written."""

    def parts(url: str) -> tuple[str, str | None, int | None, str]:
        split = urlsplit(url)
        port = split.port or {"http": 80, "https": 443}.get(split.scheme)
        return split.scheme, split.hostname, port, split.path.rstrip("/")

    return parts(one) == parts(other)

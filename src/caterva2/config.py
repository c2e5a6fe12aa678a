"""Settings of the services and the client: defaults < TOML file < ``CATERVA2_*`` environment < flags.

Each service has a section in the file and a class here; a field is the same word in both, on the command
line (``--settle-s``) and in the environment (``CATERVA2_PUBLISHER_SETTLE_S``). The few that are shared by all
parts of a group (`SHARED`) stand at the top of the file and have short names in the environment.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from caterva2.errors import ConfigError
from caterva2.memory import memory_bytes

__all__ = [
    "SHARED",
    "Address",
    "BrokerSettings",
    "ClientSettings",
    "PublisherSettings",
    "ServiceSettings",
    "SubscriberSettings",
    "Token",
    "config_file",
    "load",
    "parse_address",
    "parse_size",
]

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

TOKENS = ("token", "republish_token")
"""Fields that are secret, and may be given as the file that holds it."""

MIB = 1024 * 1024


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


def _state(service: str) -> Path:
    import platformdirs

    return Path(platformdirs.user_state_dir("caterva2", appauthor=False)) / service


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """What every service has.

    Attributes
    ----------
    listen : Address
        Port 0 chooses a free one.
    state : Path
        Directory of what must survive a restart. One service owns it.
    token : Token or None
        Shared by all parts of a group. Without one, services listen on loopback only.
    bus : tuple of str
        URLs of an existing NATS, ``nats://`` or ``tls://``. With none a broker starts one of its own, and the
        others ask the broker.
    bus_credentials : Path or None
        What proves to an existing NATS who this is: a ``.creds`` file, or one line with the seed of an nkey,
        ``user:password``, or a token.
    bus_ca : Path or None
        Certificates (PEM) of who vouches for the servers of the bus; by default those that the system knows.
        With it, a server without TLS is refused.
    bus_certificate, bus_key : Path or None
        Certificate of this service for the bus, and its private key (PEM).
    bus_replicas : int or None
        On how many servers the buckets are kept that this service makes; by default on three where the bus
        is a cluster.
    """

    section: ClassVar[str]

    listen: Address
    state: Path
    token: Token | None = None
    bus: tuple[str, ...] = field(default=(), repr=False)
    bus_credentials: Path | None = None
    bus_ca: Path | None = None
    bus_certificate: Path | None = None
    bus_key: Path | None = None
    bus_replicas: int | None = None

    def __post_init__(self) -> None:
        if self.token is None and not self.listen.is_loopback:
            raise ConfigError(
                f"cannot listen on {self.listen} without a token: anybody could read. Give all parts of the "
                "group the same one (CATERVA2_TOKEN or --token-file), or listen on 127.0.0.1"
            )


@dataclass(frozen=True, kw_only=True)
class BrokerSettings(ServiceSettings):
    """Settings of the broker."""

    section: ClassVar[str] = "broker"

    listen: Address = Address("127.0.0.1", 8000)
    state: Path = field(default_factory=lambda: _state("broker"))


@dataclass(frozen=True, kw_only=True)
class PublisherSettings(ServiceSettings):
    """Settings of a publisher.

    Attributes
    ----------
    broker : str
        URL of the broker.
    url : str or None
        Address announced to others, where it is not the one listened on (a proxy, NAT).
    settle_s : float
        A file is taken when it has not been written for this long.
    max_settle_s : float
        A file that is written all the time is taken after this long, and again each time it has passed, as
        soon as it can be read as its kind.
    rescan_s : float
        Least pause between full scans of the directories, for file systems that send no events.
    answer_limit_bytes : int
        Largest slice that is made, decoded.
    """

    section: ClassVar[str] = "publisher"

    listen: Address = Address("127.0.0.1", 8001)
    state: Path = field(default_factory=lambda: _state("publisher"))
    broker: str = "http://127.0.0.1:8000"
    url: str | None = None
    settle_s: float = 0.5
    max_settle_s: float = 30.0
    rescan_s: float = 30.0
    answer_limit_bytes: int = 4096 * MIB


@dataclass(frozen=True, kw_only=True)
class SubscriberSettings(ServiceSettings):
    """Settings of a subscriber.

    Attributes
    ----------
    broker : str
        URL of the broker.
    url : str or None
        Address of this subscriber for others.
    quota_bytes : int or None
        Most that the cache may take on disk; None for no limit.
    min_free_bytes : int
        Least that the cache leaves free on its disk, whatever the quota.
    durability : {"process", "power"}
        What the cache is to survive: the end of the process, or a power failure as well. What is served is
        right either way.
    answer_limit_bytes : int
        Largest slice that is made, decoded.
    decoded_cache_bytes : int
        Most memory that decoded blocks take which are read again and again; by default an eighth of what
        there is, 0 to keep none.
    gap_bytes : int
        Extents that are this near in the file are fetched as one range.
    upstream_requests : int
        Most requests under way to one publisher.
    upstream_timeout_s : float
        How long a publisher may stay silent.
    slices : {"auto", "never"}
        Whether publishers are asked for slices, where that is faster than fetching what is stored.
    follow : tuple of str
        Patterns that are followed from the start on, as if by ``cat2 follow``.
    follow_mode : {"cached", "full", "meta"}
        How they are followed.
    republish : tuple of str or None
        Roots that are announced to others, as from here; ``*`` for all. None where that was not said.
    republish_to : str or None
        URL of the broker of another group: the roots are announced there, so that this subscriber is a
        publisher in that group; all of them unless `republish` names some.
    republish_url : str or None
        Address announced there, where it is not `url` or the one listened on.
    republish_token : Token or None
        Of that group, where it is not the own one. Members of both are served.
    republish_bus_credentials : Path or None
        As `bus_credentials`, for the NATS of that group, where it is not the broker's own.
    """

    section: ClassVar[str] = "subscriber"

    listen: Address = Address("127.0.0.1", 8002)
    state: Path = field(default_factory=lambda: _state("subscriber"))
    broker: str = "http://127.0.0.1:8000"
    url: str | None = None
    quota_bytes: int | None = None
    min_free_bytes: int = 256 * MIB
    durability: Literal["process", "power"] = "process"
    answer_limit_bytes: int = 4096 * MIB
    decoded_cache_bytes: int = field(default_factory=lambda: memory_bytes() // 8)
    gap_bytes: int = 16 * 1024
    upstream_requests: int = 8
    upstream_timeout_s: float = 10.0
    slices: Literal["auto", "never"] = "auto"
    follow: tuple[str, ...] = ()
    follow_mode: Literal["cached", "full", "meta"] = "cached"
    republish: tuple[str, ...] | None = None
    republish_to: str | None = None
    republish_url: str | None = None
    republish_token: Token | None = None
    republish_bus_credentials: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.republish_to is not None and _same_url(self.republish_to, self.broker):
            raise ConfigError(
                f"--republish-to {self.republish_to} is the broker that the roots come from: to announce a "
                "further source of them there, use --republish alone"
            )

    @property
    def is_further_source(self) -> bool:
        """Whether it is announced to the group that it is of, as one that others may read through."""
        return self.republish is not None and self.republish_to is None


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """Settings of a client.

    Attributes
    ----------
    subscriber : str
        URL of the subscriber (or of a publisher: the API is the same).
    token : Token or None
    timeout_s : float
        How long the other side may stay silent.
    """

    section: ClassVar[str] = "client"

    subscriber: str = "http://127.0.0.1:8002"
    token: Token | None = None
    timeout_s: float = 30.0


Settings = TypeVar("Settings", bound=ServiceSettings | ClientSettings)


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
        One of the settings classes of this module.
    **flags
        Values from the command line, by field; None where none was given. ``token_file`` (or
        ``republish_token_file``) is the path of a file that holds the token.

    Raises
    ------
    ConfigError
        If a value is malformed or unsafe, a name in the file is unknown, or a file cannot be read.
    """
    for token in TOKENS:
        if (token_file := flags.pop(f"{token}_file", None)) is not None:
            flags[token] = _read_token(Path(token_file))
    hints = get_type_hints(cls)
    file, top = _file_section(cls.section, {f.name for f in fields(cls)})
    values: dict[str, Any] = {}
    for name in (f.name for f in fields(cls)):
        variable = f"CATERVA2_{name}" if name in SHARED else f"CATERVA2_{cls.section}_{name}"
        candidates = (
            ("flag --" + name.replace("_", "-"), flags.get(name)),
            ("environment " + variable.upper(), os.environ.get(variable.upper()) or None),
            (f"{config_file()} [{cls.section}] {name}", _beside_file(file.get(name), hints[name])),
            (f"{config_file()} {name}", _beside_file(top.get(name), hints[name]) if name in SHARED else None),
        )
        for origin, value in candidates:
            if value is not None:
                values[name] = _convert(name, value, hints[name], origin)
                break
    return cls(**values)


def _file_section(name: str, known: set[str]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    path = config_file()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    section = document.get(name, {})
    for table, token in ((document, "token"), (section, "republish_token")):
        if (token_file := table.pop(f"{token}_file", None)) is not None:
            table[token] = _read_token(path.parent / token_file)
    if unknown := sorted(set(section) - known):
        raise ConfigError(f"{path} [{name}] has unknown settings: {', '.join(unknown)}")
    return section, document


def _beside_file(value: Any, hint: Any) -> Any:
    """Return a value of the file; of paths that are relative, as they are meant: from its directory."""
    if _without_none(hint) is Path and isinstance(value, str):
        return config_file().parent / Path(value).expanduser()
    return value


def _read_token(path: Path) -> Token:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token file {path}: {error}") from error
    return _token(token, str(path))


def _token(text: str, origin: str) -> Token:
    if not re.fullmatch(r"[\x21-\x7e]{8,512}", text):
        raise ConfigError(f"{origin}: a token is 8 to 512 printable ASCII characters without spaces")
    return Token(text)


def _convert(name: str, value: Any, hint: Any, origin: str) -> Any:
    hint, wanted = _without_none(hint), str(hint)
    try:
        if name in TOKENS:
            return _token(str(value), origin)
        if hint is Address:
            return value if isinstance(value, Address) else parse_address(value)
        if hint is Path:
            return Path(value).expanduser()
        if name.endswith("_bytes"):
            return parse_size(value, least=0 if name.startswith(("min_", "decoded_")) else 1)
        if get_origin(hint) is Literal:
            if value not in get_args(hint):
                raise ValueError(f"{value!r} is none of {', '.join(get_args(hint))}")
            return value
        if wanted.startswith("tuple"):
            parts = value.split(",") if isinstance(value, str) else map(str, value)
            words = [part.strip() for part in parts if part.strip()]
            return tuple(_check_bus(word, origin) if name == "bus" else word for word in words)
        if hint in (int, float):
            number = hint(value)
            if not 0 < number < float("inf"):
                raise ValueError("must be a positive number")
            return number
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{origin}: {error}") from error
    if name in ("broker", "subscriber", "url", "republish_to", "republish_url"):
        return _check_url(str(value), origin)
    return str(value)


def _without_none(hint: Any) -> Any:
    """Return the type that a value has where there is one."""
    return next((arg for arg in get_args(hint) if arg is not NoneType), hint) if _is_union(hint) else hint


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _check_bus(url: str, origin: str) -> str:
    if not re.fullmatch(r"(nats|tls)://([^\s/@]+@)?[^\s/@]+/?", url):  # not shown: it may have a password
        raise ConfigError(f"{origin}: not the URL of a NATS server, such as tls://n1.example.org:4222")
    return url


def _check_url(url: str, origin: str) -> str:
    if not re.fullmatch(r"https?://[^\s/@]+(/[^\s]*)?", url):
        raise ConfigError(f"{origin}: {url!r} is not a URL such as http://127.0.0.1:8002")
    return url.rstrip("/")


def _same_url(one: str, other: str) -> bool:
    def parts(url: str) -> tuple[str, str | None, int | None, str]:
        split = urlsplit(url)
        port = split.port or {"http": 80, "https": 443}.get(split.scheme)
        return split.scheme, split.hostname, port, split.path.rstrip("/")

    return parts(one) == parts(other)


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

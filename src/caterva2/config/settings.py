"""The settings of each service and of the client, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from caterva2.config.values import Address, Token, same_url
from caterva2.errors import ConfigError
from caterva2.memory import memory_bytes

__all__ = [
    "BrokerSettings",
    "ClientSettings",
    "PublisherSettings",
    "ServiceSettings",
    "SubscriberSettings",
]

MIB = 1024 * 1024

BROKER_ADDRESS = Address("127.0.0.1", 8000)
PUBLISHER_ADDRESS = Address("127.0.0.1", 8001)
SUBSCRIBER_ADDRESS = Address("127.0.0.1", 8002)


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

    listen: Address = BROKER_ADDRESS
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

    listen: Address = PUBLISHER_ADDRESS
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

    listen: Address = SUBSCRIBER_ADDRESS
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
        if self.republish_to is not None and same_url(self.republish_to, self.broker):
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

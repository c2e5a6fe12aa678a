"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from caterva2 import config
from caterva2.client import Client, connect
from caterva2.client.transport import Transport
from caterva2.errors import Caterva2Error, NotFound

__all__ = ["BusOptions", "Connection", "Json", "is_a_directory"]

NEAR_S = 2.0
"""How long the look-up of names that are near may take the other side, in seconds."""

Json = Annotated[bool, Parameter(name="--json", help="Print JSON: a contract for scripts.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Connection:
    """Which subscriber is asked, and how."""

    subscriber: Annotated[
        str | None,
        Parameter(help="URL of the subscriber (else CATERVA2_SUBSCRIBER, else http://127.0.0.1:8002)."),
    ] = None
    token_file: Annotated[
        Path | None, Parameter(help="File that holds the token of the group (else CATERVA2_TOKEN).")
    ] = None
    timeout_s: Annotated[
        float | None, Parameter(help="How long the other side may stay silent, in seconds (30).")
    ] = None
    debug: Annotated[bool, Parameter(help="Show where an error came from.")] = False

    @contextmanager
    def open(self) -> Iterator[Client]:
        """Give a client, and close it. What is not there is said with what may have been meant.

        Raises
        ------
        ConfigError
            If a setting is malformed.
        """
        with connect(self.subscriber, token_file=self.token_file, timeout_s=self.timeout_s) as client:
            try:
                yield client
            except NotFound as error:
                near = self._near(error.path)
                if error.path in near:
                    raise is_a_directory(error.path) from error
                if near:
                    names = " or ".join(map(repr, near))
                    raise NotFound(error.path, f"{error}; did you mean {names}?") from error
                raise

    def transport(self, silence_s: float) -> Transport:
        """Return what looks up names, and gives up on a service that is silent for so long.

        Raises
        ------
        ConfigError
            If a setting is malformed.
        """
        settings = config.load(config.ClientSettings, subscriber=self.subscriber, token_file=self.token_file)
        return Transport(settings.subscriber, settings.token, silence_s)

    def _near(self, path: str) -> list[str]:
        from caterva2.cli.names import names_near

        try:
            return names_near(self.transport(NEAR_S), path)
        except Caterva2Error:
            return []  # what went wrong first is what is to be said


def is_a_directory(path: str) -> NotFound:
    """Return that a directory is no dataset, with what to do."""
    return NotFound(path, f"{path!r} is a directory: cat2 list {path} prints the datasets in it")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BusOptions:
    """Which existing NATS is used, and how."""

    bus: Annotated[
        tuple[str, ...],
        Parameter(help="URL of a NATS that runs already, tls:// or nats://; can be repeated."),
    ] = ()
    bus_credentials: Annotated[
        Path | None,
        Parameter(help="File for that NATS: .creds, or a line with a seed, user:password or a token."),
    ] = None
    bus_ca: Annotated[Path | None, Parameter(help="Certificates (PEM) of who vouches for that NATS.")] = None
    bus_certificate: Annotated[Path | None, Parameter(help="Certificate (PEM) to show to that NATS.")] = None
    bus_key: Annotated[Path | None, Parameter(help="The key of that certificate (PEM).")] = None
    bus_replicas: Annotated[
        int | None, Parameter(help="Servers that keep a bucket, where it has to be made (a cluster: 3).")
    ] = None

    def flags(self) -> dict[str, Any]:
        """Return them as `caterva2.config.load` takes them."""
        return asdict(self) | {"bus": self.bus or None}

"""Options that several verbs share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from caterva2.client import Client, connect

__all__ = ["BusOptions", "Connection", "Json"]

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

    def open(self) -> Client:
        """Return a client.

        Raises
        ------
        ConfigError
            If a setting is malformed.
        """
        return connect(self.subscriber, token_file=self.token_file, timeout_s=self.timeout_s)


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

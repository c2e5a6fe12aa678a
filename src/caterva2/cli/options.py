"""Options that several verbs share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from caterva2.client import Client, connect

__all__ = ["Connection", "Json"]

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

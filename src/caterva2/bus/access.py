"""How a service shows a NATS who it is, and how it knows that server.

What it shows (`read_credentials`) is read from its file for each connection, so that it can be replaced while
the service runs.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from caterva2.errors import ConfigError

__all__ = ["Access", "read_credentials"]

_SEED = re.compile(r"SU[A-Z2-7]{56}")


@dataclass(frozen=True, slots=True)
class Access:
    """What a connection to an existing NATS takes beside its URL.

    Attributes
    ----------
    credentials : Path or None
        File with what is shown to the server, see `read_credentials`.
    ca : Path or None
        Certificates (PEM) of who vouches for the server, in place of those that the system knows.
    certificate, key : Path or None
        What is shown in the TLS handshake (PEM).
    """

    credentials: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def insists_on_tls(self, url: str) -> bool:
        """Return whether a server that does not speak TLS is refused."""
        return urlsplit(url).scheme == "tls" or self.ca is not None or self.certificate is not None

    def options(self, url: str) -> dict[str, Any]:  # Any: what `Client.connect` takes
        """Return the options of a connection to a server.

        Raises
        ------
        ConfigError
            If a file cannot be read, or has something else in it.
        """
        found: dict[str, Any] = {"tls": self._tls_context()} if self.insists_on_tls(url) else {}
        return found if self.credentials is None else found | read_credentials(self.credentials)

    def _tls_context(self) -> ssl.SSLContext:
        what, path = "bus_ca", self.ca
        try:
            context = ssl.create_default_context(cafile=self.ca)
            what, path = "bus_certificate", self.certificate
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # an SSLError is one
            raise ConfigError(f"{what} {path} cannot be used: {error.strerror or error}") from error
        return context


def read_credentials(path: Path) -> dict[str, Any]:
    """Return the options of a connection that a file of credentials stands for.

    It is a ``.creds`` file, or has one line: the seed of an nkey (``SU…``), ``user:password``, or a token.

    Raises
    ------
    ConfigError
        If it cannot be read, has something else in it, or needs what is not installed.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the bus_credentials {path}: {error}") from error
    if "BEGIN NATS USER JWT" in text:
        _need_nkeys(path)
        return {"user_credentials": str(path)}
    if not text or len(text.split()) != 1:
        raise ConfigError(
            f"the bus_credentials {path} are neither a .creds file nor one line with the seed of an nkey, "
            "user:password or a token"
        )
    if _SEED.fullmatch(text):
        _need_nkeys(path)
        return {"nkeys_seed_str": text}
    user, colon, password = text.partition(":")
    return {"user": user, "password": password} if colon else {"token": text}


def _need_nkeys(path: Path) -> None:
    if find_spec("nkeys") is None:
        raise ConfigError(f"to use the keys in {path}, install the extra: pip install 'caterva2[nkeys]'")

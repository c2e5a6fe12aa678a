"""Everything that can go wrong, as types that carry data.

::

    Caterva2Error
    ├── NotFound (FileNotFoundError)        there is no such root or dataset
    ├── BadRequest (ValueError)             what was asked for makes no sense
    │   ├── InvalidPath                     not a valid ``root/dir/name``
    │   ├── InvalidSelection (IndexError)   not a slice of this array
    │   ├── InvalidRange                    not a byte range of this file (HTTP 416)
    │   └── TooLarge                        the answer would pass the size limit
    ├── Changed                             that version is no longer what is published
    ├── Unavailable (ConnectionError)       whoever has it cannot be reached now
    │   └── NotCached                       it is not here, and nobody else was to be asked (HTTP 504)
    ├── Unauthorized (PermissionError)      the token is missing or wrong
    ├── Unsupported (NotImplementedError)   the data is fine, we cannot decode it
    ├── Corrupt (ValueError)                the bytes are not what their format says
    ├── IntegrityError (ValueError)         the bytes are not what their digest says
    ├── StateInUse (OSError)                another process owns that state directory
    ├── BusError (ConnectionError)          the message bus cannot be started or used
    ├── CannotListen (OSError)              the address is taken, not ours, or not permitted
    └── ConfigError (ValueError)            a setting is missing, wrong or unsafe

Domain code raises these and nothing else for conditions a caller may meet. One table maps them to HTTP
(`caterva2.http.problems`), one to exit codes (`caterva2.cli.exit_codes`).
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "BadRequest",
    "BusError",
    "CannotListen",
    "Caterva2Error",
    "Changed",
    "ConfigError",
    "Corrupt",
    "IntegrityError",
    "InvalidPath",
    "InvalidRange",
    "InvalidSelection",
    "NotCached",
    "NotFound",
    "StateInUse",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unsupported",
]


class Caterva2Error(Exception):
    """Base of all errors of this package.

    Attributes
    ----------
    slug : str
        Stable name of the kind of error; the last part of the problem ``type`` on the wire.
    """

    slug: ClassVar[str] = "error"

    def __reduce__(self) -> tuple[Any, ...]:  # Any: as pickle has it
        """Pickle as the message and the data: what makes one takes other arguments, and is not called."""
        return _unpickled, (type(self), self.args, vars(self))


def _unpickled(kind: type[Caterva2Error], args: tuple[Any, ...], data: dict[str, Any]) -> Caterva2Error:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(data)
    return error


class NotFound(Caterva2Error, FileNotFoundError):
    """There is no such root or dataset."""

    slug = "not-found"

    def __init__(self, path: str, message: str | None = None) -> None:
        super().__init__(message or f"{path!r} is not published here")
        self.path = path

    def __str__(self) -> str:
        # OSError.__str__ would print its errno form
        return str(self.args[0])


class BadRequest(Caterva2Error, ValueError):
    """What was asked for makes no sense, whatever the data."""

    slug = "bad-request"


class InvalidPath(BadRequest):
    """Not a valid ``root/dir/name``."""

    slug = "invalid-path"


class InvalidSelection(BadRequest, IndexError):
    """Not a selection of this array."""

    slug = "invalid-selection"


class InvalidRange(BadRequest):
    """Not a byte range of this file.

    Attributes
    ----------
    size : int
        Size of the file, in bytes.
    """

    slug = "invalid-range"

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class TooLarge(BadRequest):
    """The answer would pass the size limit; it was not made.

    Attributes
    ----------
    nbytes, limit_bytes : int
        Size of the answer asked for, and the limit, in bytes.
    """

    slug = "too-large"

    def __init__(self, nbytes: int, limit_bytes: int, what: str = "answer") -> None:
        super().__init__(
            f"the {what} would take {nbytes:,} bytes, the limit is {limit_bytes:,}: ask for less"
        )
        self.nbytes = nbytes
        self.limit_bytes = limit_bytes


class Changed(Caterva2Error):
    """That version is no longer what is published.

    Attributes
    ----------
    path : str
    wanted_etag, current_etag : str or None
        The version asked for and the one that is current (None where it is not known yet).
    """

    slug = "changed"

    def __init__(self, path: str, wanted_etag: str | None, current_etag: str | None = None) -> None:
        now = f"is now {current_etag}" if current_etag else "is being replaced"
        super().__init__(f"{path!r} {now}, version {wanted_etag} was asked for")
        self.path = path
        self.wanted_etag = wanted_etag
        self.current_etag = current_etag


class Unavailable(Caterva2Error, ConnectionError):
    """Whoever has the data cannot be reached now.

    Attributes
    ----------
    retry_after_s : float
        When it is worth trying again, in seconds.
    """

    slug = "unavailable"

    def __init__(self, message: str, retry_after_s: float = 2.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotCached(Unavailable):
    """It is not here, and nobody else was to be asked for it (``Cache-Control: only-if-cached``)."""

    slug = "not-cached"


class Unauthorized(Caterva2Error, PermissionError):
    """The token is missing or wrong."""

    slug = "unauthorized"


class Unsupported(Caterva2Error, NotImplementedError):
    """The data is fine, but cannot be decoded or selected that way here."""

    slug = "unsupported"


class Corrupt(Caterva2Error, ValueError):
    """The bytes are not what their format says."""

    slug = "corrupt"


class IntegrityError(Caterva2Error, ValueError):
    """The bytes are not what their digest says.

    Attributes
    ----------
    path, source : str
        The dataset, and who sent the bytes.
    offset, size : int
        The extent, in bytes.
    """

    slug = "integrity"

    def __init__(self, path: str, source: str, offset: int, size: int) -> None:
        super().__init__(
            f"{source} sent bytes of {path!r} that do not match their digest (offset {offset}, {size} bytes)"
        )
        self.path = path
        self.source = source
        self.offset = offset
        self.size = size


class StateInUse(Caterva2Error, OSError):
    """Another process owns that state directory.

    Attributes
    ----------
    directory : str
    pid : int or None
        The owner, where it could be read.
    alive : bool
        Whether there is a process of that number: what the owner left behind may have the directory still.
    """

    slug = "state-in-use"

    def __init__(self, directory: str, pid: int | None, *, alive: bool = True) -> None:
        owner = f"process {pid}" if pid and alive else "another process"
        super().__init__(f"{directory} is in use by {owner}: stop it, or choose another --state directory")
        self.directory = directory
        self.pid = pid
        self.alive = alive

    def __str__(self) -> str:
        return str(self.args[0])


class BusError(Caterva2Error, ConnectionError):
    """The message bus cannot be started or used."""

    slug = "bus"


class CannotListen(Caterva2Error, OSError):
    """The address to listen on is taken, not this machine's, or not permitted.

    Attributes
    ----------
    address : str
    """

    slug = "cannot-listen"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.address = address

    def __str__(self) -> str:
        return str(self.args[0])


class ConfigError(Caterva2Error, ValueError):
    """A setting is missing, wrong or unsafe."""

    slug = "config"

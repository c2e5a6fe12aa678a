"""Exit codes: the one table from errors to what a script sees, and what to say of them."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import IntEnum

from caterva2 import errors

__all__ = ["ExitCode", "Explained", "exit_code", "explain"]


class ExitCode(IntEnum):
    """What a process of ours ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNAVAILABLE = 5
    CHANGED = 6
    INTERRUPTED = 130


_CODES: dict[type[BaseException], ExitCode] = {
    errors.NotFound: ExitCode.NOT_FOUND,
    errors.TooLarge: ExitCode.FAILED,
    errors.BadRequest: ExitCode.USAGE,
    errors.ConfigError: ExitCode.USAGE,
    errors.Changed: ExitCode.CHANGED,
    errors.Unauthorized: ExitCode.NOT_ALLOWED,
    errors.Unavailable: ExitCode.UNAVAILABLE,
    errors.BusError: ExitCode.UNAVAILABLE,
    PermissionError: ExitCode.NOT_ALLOWED,
    KeyboardInterrupt: ExitCode.INTERRUPTED,
}
"""Looked up along the bases of an error; what is not here is `ExitCode.FAILED`."""

_HINTS: dict[type[BaseException], str] = {
    errors.Unauthorized: "give the token of the group: --token-file FILE, or CATERVA2_TOKEN",
    errors.NotFound: "see what there is: cat2 roots, cat2 list ROOT",
    errors.InvalidPath: "a dataset is named root/dir/name, as cat2 list prints it",
    errors.InvalidSelection: "see its shape: cat2 info PATH",
    errors.Changed: "run it again to get the new version",
    errors.IntegrityError: "run it again; if it stays, the file of the publisher changes without notice",
}
"""What to do next, where the message does not say so."""


_SAYS_IT = ("did you mean", "cat2 ", "(followed: ", "(pinned: ", "that was meant?")
"""Words by which a message says what to do itself."""

_FROM_FILES = ("environment ", "cannot read ", "/")
"""How errors of settings begin that do not come from the command line."""

_SYSTEM_HINTS: dict[int, str] = {
    errno.ENOSPC: "make room there, or choose another directory",
    errno.EROFS: "nothing can be written there: choose another directory",
    errno.EACCES: "this user may not: choose another place, or have its permissions changed",
    errno.EPERM: "this user may not: choose another place, or have its permissions changed",
    errno.ENOTDIR: "a part of that path is a file: choose another one",
    errno.EEXIST: "something else has that name: choose another one",
    errno.ENOENT: "see whether the path is right",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
}
"""What to do next, where the system refused something."""


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code of an error."""
    return next((_CODES[base] for base in type(error).__mro__ if base in _CODES), ExitCode.FAILED)


@dataclass(frozen=True, slots=True)
class Explained:
    """What is said of an error: a contract of ``--json``, see ``docs/reference/json.md``.

    Attributes
    ----------
    error : str
        Kind of error: its slug, or ``usage``, ``system``, ``memory``, ``unexpected``.
    detail : str
        What failed.
    hint : str or None
        What to do next, where the detail does not say so.
    exit_code : int
    """

    error: str
    detail: str
    hint: str | None
    exit_code: int


def explain(error: BaseException) -> Explained:
    """Return what is to be said of an error: what failed, and what to do next."""
    hint = next((_HINTS[base] for base in type(error).__mro__ if base in _HINTS), None)
    if isinstance(error, errors.Caterva2Error):
        kind, text = error.slug, str(error) or type(error).__name__
        if any(words in text for words in _SAYS_IT):
            hint = None
        elif isinstance(error, errors.ConfigError) and text.startswith(_FROM_FILES):
            hint = "see what is set, and where: cat2 config"
    elif isinstance(error, OSError) and error.strerror:
        kind = "system"
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        hint = hint or _SYSTEM_HINTS.get(error.errno or 0)
    elif isinstance(error, MemoryError):
        kind, text, hint = "memory", "not enough memory", "ask for a smaller part"
    else:
        kind, text = "unexpected", f"unexpected {type(error).__name__}: {error}"
        hint = "run it again with --debug to see where"
    return Explained(kind, text, hint, exit_code(error))

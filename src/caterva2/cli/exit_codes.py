"""Exit codes: the one table from errors to what a script sees, and what to say of them."""

from __future__ import annotations

from enum import IntEnum

from caterva2 import errors

__all__ = ["ExitCode", "exit_code", "explain"]


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


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code of an error."""
    return next((_CODES[base] for base in type(error).__mro__ if base in _CODES), ExitCode.FAILED)


def explain(error: BaseException) -> str:
    """Return an error in one or two lines: what failed, and what to do next."""
    if isinstance(error, errors.Caterva2Error):
        text = str(error) or type(error).__name__
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, MemoryError):
        text = f"not enough memory: {error}; ask for a smaller part"
    else:
        return f"unexpected {type(error).__name__}: {error}\nrun it again with --debug to see where"
    hint = next((_HINTS[base] for base in type(error).__mro__ if base in _HINTS), None)
    return f"{text}\n{hint}" if hint else text

"""What ``cat2 doctor`` finds: a line for each thing that it looked at."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Finding", "State", "failed", "ok", "warning"]

State = Literal["ok", "warning", "failed"]


class Finding(NamedTuple):
    """What was found of one thing.

    Attributes
    ----------
    check : str
        What was looked at.
    state : {"ok", "warning", "failed"}
    detail : str
        What it is like.
    hint : str or None
        What to do; None where all is well.
    """

    check: str
    state: State
    detail: str
    hint: str | None = None


def ok(check: str, detail: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(check, "ok", detail)


def warning(check: str, detail: str, hint: str) -> Finding:
    """Return that something may be a reason for trouble."""
    return Finding(check, "warning", detail, hint)


def failed(check: str, detail: str, hint: str) -> Finding:
    """Return that something has to be mended."""
    return Finding(check, "failed", detail, hint)

"""How a service says that it had the data of its answers: ``Server-Timing``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Timing", "parse_timing"]

_ENTRY = re.compile(r"""\s*([!#-'*+.0-9A-Z^-z|~-]+)((?:\s*;\s*[a-z]+=(?:"[^"]*"|[^;,"]*))*)\s*(?:,|$)""")
_PARAMETER = re.compile(r"""([a-z]+)=(?:"([^"]*)"|([^;,"]*))""")

ESTIMATE = "estimate-"


@dataclass(frozen=True, slots=True)
class Timing:
    """How the data of one answer was had, up to its first byte.

    Attributes
    ----------
    choice : str
        ``cached``, or what was chosen for what was missing: ``blocks``, ``chunks`` or ``slice``; several of
        them, and how often, for an answer that was made in parts.
    estimates_ms : dict of str to float
        What each would take, in milliseconds, as estimated before.
    upstream_ms : float
        What it took, in milliseconds.
    upstream_bytes : int
        What was fetched for it, in bytes of body.
    """

    choice: str
    estimates_ms: dict[str, float] = field(default_factory=dict)
    upstream_ms: float = 0.0
    upstream_bytes: int = 0


def parse_timing(value: str | None) -> Timing | None:
    """Parse a ``Server-Timing`` header; None if it says nothing of that."""
    entries = {
        match[1]: {name: quoted or plain for name, quoted, plain in _PARAMETER.findall(match[2])}
        for match in _ENTRY.finditer(value or "")
    }
    if "cache" not in entries:
        return None
    upstream = entries.get("upstream", {})
    nbytes = re.match(r"[0-9]{1,18}", upstream.get("desc", ""))
    return Timing(
        entries["plan"].get("desc", "blocks") if "plan" in entries else "cached",
        {
            name.removeprefix(ESTIMATE): _number(parameters)
            for name, parameters in entries.items()
            if name.startswith(ESTIMATE)
        },
        _number(upstream),
        int(nbytes[0]) if nbytes else 0,
    )


def _number(parameters: dict[str, str]) -> float:
    try:
        return float(parameters.get("dur", "0"))
    except ValueError:
        return 0.0

"""The environment of each peer: made once, from pins, and never able to stop the others."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.services import NotRun

from caterva2.errors import Unsupported
from caterva2.testing.environments import python_with

__all__ = ["python_of"]

REQUIREMENTS = Path(__file__).parent / "requirements"


def python_of(name: str, directory: Path) -> Path:
    """Return the interpreter of an environment, which is made if it is not there as the pins say.

    Parameters
    ----------
    name : str
        As the file in ``requirements/``; empty for this interpreter.
    directory : Path
        Where environments are kept.

    Raises
    ------
    NotRun
        If it cannot be installed.
    """
    if not name:
        return Path(sys.executable)
    try:
        return python_with(REQUIREMENTS / f"{name}.txt", directory / name)
    except Unsupported as error:
        raise NotRun(str(error)) from error

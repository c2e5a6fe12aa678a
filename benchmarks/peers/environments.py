"""The environment of each peer: made once, from pins, and never able to stop the others."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.peers.services import NotRun, last_line

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
    requirements = REQUIREMENTS / f"{name}.txt"
    home = directory / name
    python = home / "bin" / "python"
    wanted = hashlib.sha256(f"{sys.version}\n{requirements.read_text()}".encode()).hexdigest()
    stamp = home / ".made-from"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {name} …", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True, symlinks=True)
        _install(python, requirements, directory / f"{name}.log")
        stamp.write_text(wanted)
    return python


def _install(python: Path, requirements: Path, log: Path) -> None:
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-r", str(requirements)]
    with log.open("wb") as file:
        failed = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
    if failed:
        raise NotRun(f"cannot be installed: {last_line(log)}")

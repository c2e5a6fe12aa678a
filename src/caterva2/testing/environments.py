"""Environments for other packages, from pins: made once, with uv where it is there, else with pip."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from caterva2.errors import Unsupported

__all__ = ["python_with"]


def python_with(requirements: Path, home: Path) -> Path:
    """Return the interpreter of an environment, which is made if it is not there as the pins say.

    Parameters
    ----------
    requirements : Path
        Pins, as pip reads them.
    home : Path
        Where the environment is kept; what installing says is in ``home.log`` beside it.

    Raises
    ------
    Unsupported
        If it cannot be installed; the text has the last words of the installer.
    """
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = hashlib.sha256(f"{sys.version}\n{requirements.read_text()}".encode()).hexdigest()
    stamp = home / ".made-from"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {home.name} …", file=sys.stderr)
        home.parent.mkdir(parents=True, exist_ok=True)
        _make(python, home, requirements)
        stamp.write_text(wanted)
    return python


def _make(python: Path, home: Path, requirements: Path) -> None:
    uv = shutil.which("uv")
    if uv:
        commands = [
            [uv, "venv", "--clear", "--python", sys.executable, str(home)],
            [uv, "pip", "install", "--python", str(python), "-r", str(requirements)],
        ]
    else:
        venv.create(home, clear=True, with_pip=True, symlinks=os.name != "nt")
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
        commands = [[*pip, "-r", str(requirements)]]
    log = home.with_suffix(".log")
    with log.open("wb") as file:
        for command in commands:
            if subprocess.run(command, stdout=file, stderr=file, check=False).returncode:
                raise Unsupported(f"{home.name} cannot be installed: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "the installer said nothing"

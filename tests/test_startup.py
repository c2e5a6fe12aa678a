"""What starts, and how heavy it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numpy", "blosc2", "nats", "fastapi", "uvicorn", "aiohttp")
OPTIONAL = ("xarray", "dask", "fsspec", "zarr", "npe2")
NOT_WANTED = HEAVY + OPTIONAL

HELP = """
from contextlib import suppress
from caterva2.cli import main
with suppress(SystemExit):
    main({})
"""


@pytest.mark.parametrize(
    "code",
    [
        "import caterva2",
        "import caterva2; caterva2.connect",
        HELP.format(["--help"]),
        HELP.format(["roots", "--help"]),
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    look = f"[name for name in {NOT_WANTED!r} if name in sys.modules]"
    script = f"{code}\nimport sys; print({look}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_both_names_of_the_command_are_the_same() -> None:
    from importlib.metadata import entry_points

    commands = {point.name: point.value for point in entry_points(group="console_scripts")}
    assert commands["cat2"] == commands["caterva2"]


def test_the_version_is_known() -> None:
    import caterva2

    assert caterva2.__version__[0].isdigit()

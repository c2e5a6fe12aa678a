"""The notebooks in ``examples/`` run from top to bottom, and are kept without what they printed."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from .pages import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_outputs(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[] for _ in code]
    assert {cell.execution_count for cell in code} == {None}
    assert str(Path.home()) not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
async def test_a_notebook_runs(file: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("caterva2.adapters.xarray")
    monkeypatch.setenv("CATERVA2_CONFIG", str(tmp_path / "none.toml"))
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(notebook, timeout=90, resources={"metadata": {"path": str(tmp_path)}})
    await client.async_execute()
    printed = [
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output
    ]
    assert any("0 bytes from the publisher" in text for text in printed)
    assert any("changed climate/air_temperature.b2nd" in text for text in printed)

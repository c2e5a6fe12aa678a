"""What the tests of adapters need of the libraries that they are for."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # zarr.testing has tests of graphics cards; the plugin that says so is off, as it loads zarr for all tests
    config.addinivalue_line("markers", "gpu: needs a graphics card")

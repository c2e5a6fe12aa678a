"""Sphinx configuration."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "Caterva2"
copyright = "2026, the Caterva2 developers"
release = installed("caterva2")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_line"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "Caterva2"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
exclude_patterns = ["build"]
suppress_warnings = [
    "myst.xref_missing",  # links to files of the repository, which are no pages here
    "ref.python",  # attributes of several classes share names
]

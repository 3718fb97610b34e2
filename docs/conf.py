"""Sphinx configuration: ``sphinx-build -W docs build/html`` makes the pages, offline."""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import syncws

project = "syncws"
author = "syncws contributors"
copyright = "2026, syncws contributors"
release = version = syncws.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# The results are a part of the page on benchmarks.
exclude_patterns = ["_build", "benchmarks/results.rst"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"syncws {release}"

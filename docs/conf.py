"""Sphinx configuration: ``sphinx-build -W docs build/html`` makes the pages, offline."""

from __future__ import annotations

import pathlib
import re
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
html_static_path = ["_static"]
html_css_files = ["pages.css"]

INLINE_CODE = re.compile(r'(?<=<span class="pre">)[^<]+(?=</span>)')
OPTION = re.compile(r"(?<![\w-])--?\w[\w-]*")
LONG = 24  # characters of a name that may be broken; names of tests are longer
PICTURE = re.compile(r'<img [^>]*\.svg"[^>]*>')


def fit_window(app, pagename, templatename, context, doctree):
    """
    Prepare a page for narrow windows.

    Lines break within long names, after their underscores, but not within ``--option``. Pictures
    are in boxes that scroll: made to fit on a phone, they could not be read.
    """

    def marked(match):
        text = OPTION.sub(r'<span class="unbroken">\g<0></span>', match.group())
        if len(match.group()) > LONG:
            text = re.sub(r"(?<=\w)(_+|::|[./])(?=\w)", r"\1<wbr>", text)
        return text

    if "body" in context:
        body = INLINE_CODE.sub(marked, context["body"])
        context["body"] = PICTURE.sub(r'<div class="picture">\g<0></div>', body)


def setup(app):
    app.connect("html-page-context", fit_window)

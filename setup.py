"""
Builds the optional C module; everything else about the package is in setup.cfg.

Without it the package does the same, in Python: a build never fails for want of a compiler.
``SYNCWS_PURE_PYTHON=1`` in the environment skips it.
"""

import os
import re
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py


def say_without(reason):
    print(f"syncws: building without C speedups: {reason}", file=sys.stderr)


def reason_of(exc):
    """One line; the options that the compiler was called with are no part of it."""
    line = (str(exc) or type(exc).__name__).splitlines()[0]
    return re.sub(r"\['([^']*)'.*\]", r"\1", line)


def reason_to_skip():
    if os.environ.get("SYNCWS_PURE_PYTHON"):
        return "SYNCWS_PURE_PYTHON is set"
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} is faster with Python"
    return None


class PureBuild(build_py):
    """Says why there is nothing to compile. The wheel is one for all platforms."""

    def run(self):
        say_without(reason_to_skip())
        super().run()


class OptionalBuild(build_ext):
    """Compiles, or says why not, and leaves the module out."""

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except Exception as exc:  # No compiler, no headers, no space: each has its own class.
            say_without(reason_of(exc))
            self.extensions = [other for other in self.extensions if other is not ext]


if reason_to_skip():
    setup(cmdclass={"build_py": PureBuild})
else:
    extension = Extension("syncws._speedups", ["syncws/_speedups.c"], optional=True)
    setup(ext_modules=[extension], cmdclass={"build_ext": OptionalBuild})

"""
Runs one target under atheris: ``python fuzzer.py TARGET [libFuzzer options] [corpora]``.

The targets themselves know nothing of atheris, so that the tests can use them without it.
"""

from __future__ import annotations

import importlib
import pathlib
import shlex
import sys

import atheris

HERE = pathlib.Path(__file__).absolute().parent


def main():
    sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]
    name = sys.argv.pop(1)
    # libFuzzer gives this to a shell when it starts itself, as it does for merging.
    sys.argv[0] = shlex.join([sys.executable, str(HERE / "fuzzer.py"), name])
    with atheris.instrument_imports(include=["syncws"]):
        target = importlib.import_module(f"fuzz.{name}")
    atheris.Setup(sys.argv, target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

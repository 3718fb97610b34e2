"""
How long Hypothesis searches: a moment in every run of the suite, and for long when asked to.

``SYNCWS_HYPOTHESIS=long`` in the environment tries 20,000 random examples of each property, which
takes hours. Otherwise the examples are few and always the same.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

LONG = os.environ.get("SYNCWS_HYPOTHESIS") == "long"
LONG_EXAMPLES = 20_000

# Beside its database of examples, Hypothesis caches tables of Unicode and constants of the code
# under test in a folder. Below a device none can be made, and it does without.
set_hypothesis_home_dir(Path(os.devnull) / "hypothesis")

# No deadline and no complaint of slowness: neither would say anything but how busy the machine is.
settings.register_profile(
    "quick",
    max_examples=32,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "long",
    max_examples=LONG_EXAMPLES,
    derandomize=False,
    print_blob=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("long" if LONG else "quick")

# For ``pytestmark``: how long a property may take; what fails takes a while to be made small.
patience = pytest.mark.timeout(3600 if LONG else 300)


def examples(number):
    """Settings for a property whose quick search should try this many examples."""
    return settings(max_examples=LONG_EXAMPLES if LONG else number)

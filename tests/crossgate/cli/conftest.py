"""What the command line's tests have in common."""

from __future__ import annotations

import os

import pytest

from crossgate.cli.load import LoadUnavailable, check_load_available


@pytest.fixture
def generator():
    """The load generator is there; else the test is skipped, and fails where CI promised it."""
    try:
        check_load_available()
    except LoadUnavailable as error:
        if os.environ.get("CROSSGATE_REQUIRE_NATIVE") == "1":
            raise
        pytest.skip(str(error))

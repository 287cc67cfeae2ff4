"""What the command line's tests have in common."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from crossgate.cli.load import LoadUnavailable, check_load_available

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from document_commands import FILE, Commands


@pytest.fixture
def generator():
    """The load generator is there; else the test is skipped, and fails where CI promised it."""
    try:
        check_load_available()
    except LoadUnavailable as error:
        if os.environ.get("CROSSGATE_REQUIRE_NATIVE") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture
def crossgate(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return Commands(tmp_path)


@pytest.fixture
def digits(crossgate):
    """The file of a model that is in the store."""
    path = crossgate.write("digits.yaml", FILE)
    crossgate("apply", "-f", path, "-m", "first")
    return path

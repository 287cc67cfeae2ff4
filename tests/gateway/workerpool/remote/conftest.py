from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from pool_elsewhere import Heard


class FakeClock:
    def __init__(self):
        self.time_ns = 1_000_000_000

    def now_ns(self):
        return self.time_ns


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def heard():
    return Heard()

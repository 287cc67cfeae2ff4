from __future__ import annotations

import pytest

from gateway.workerpool.remote.standing import PATIENCE_NS, Standing, leaves_at_ns

NOW = 100


@pytest.mark.parametrize(
    ("standing", "at_ns"),
    [
        (Standing(registered=True, alike=True, connected=False, unreachable_since_ns=None), None),
        (Standing(registered=True, alike=True, connected=True, unreachable_since_ns=None), None),
        (Standing(registered=False, alike=True, connected=True, unreachable_since_ns=None), None),
        (Standing(registered=True, alike=False, connected=True, unreachable_since_ns=None), None),
        (Standing(registered=False, alike=True, connected=False, unreachable_since_ns=None), NOW),
        (Standing(registered=True, alike=False, connected=False, unreachable_since_ns=None), NOW),
        (Standing(registered=True, alike=True, connected=False, unreachable_since_ns=7), 7 + PATIENCE_NS),
        (Standing(registered=False, alike=True, connected=False, unreachable_since_ns=7), NOW),
    ],
)
def test_when_a_slot_is_given_up(standing, at_ns):
    assert leaves_at_ns(standing, NOW) == at_ns

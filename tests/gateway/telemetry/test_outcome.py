from __future__ import annotations

import pytest

from gateway import errors
from gateway.telemetry.outcome import Outcome


class QueueFull(errors.Exhausted):
    pass


class NewCause(errors.GatewayError):
    pass


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.OK),
        (errors.InvalidRequest(), Outcome.INVALID),
        (errors.NotOffered(), Outcome.NOT_OFFERED),
        (errors.NotFound(), Outcome.NOT_FOUND),
        (errors.NotReady(), Outcome.UNAVAILABLE),
        (errors.Exhausted(), Outcome.EXHAUSTED),
        (QueueFull(), Outcome.EXHAUSTED),
        (errors.Expired(), Outcome.EXPIRED),
        (errors.Cancelled(), Outcome.CANCELLED),
        (errors.ModelFailure(), Outcome.FAILED),
        (NewCause(), Outcome.FAILED),
        (errors.Bug("e1"), Outcome.BUG),
        (KeyError(), Outcome.BUG),
    ],
)
def test_outcome_follows_the_cause(error, outcome):
    assert Outcome.of(error) is outcome

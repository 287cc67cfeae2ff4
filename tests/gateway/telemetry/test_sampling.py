from __future__ import annotations

import logging

import pytest

from gateway.telemetry.outcome import Outcome
from gateway.telemetry.sampling import DEFAULT_SLOW_NS, Sampler, Sampling, sampling_from_environment

DEFAULT = Sampling()


@pytest.mark.parametrize(
    ("ratio", "follow_parent", "parent_sampled", "draw", "sampled"),
    [
        (0.0, True, None, 0.0, False),
        (1.0, True, None, 0.999, True),
        (0.1, True, None, 0.099, True),
        (0.1, True, None, 0.1, False),
        (1.0, True, False, 0.0, False),  # sampled=0 wins over every ratio
        (0.0, True, True, 0.999, True),
        (1.0, False, False, 0.5, True),  # unless the policy says otherwise
        (0.0, False, True, 0.0, False),
    ],
)
def test_decision(ratio, follow_parent, parent_sampled, draw, sampled):
    assert Sampler(ratio, follow_parent).decide(parent_sampled, draw) is sampled


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("", "", DEFAULT),
        ("", "0.9", DEFAULT),
        ("always_on", "", Sampling(1.0, False)),
        ("always_off", "", Sampling(0.0, False)),
        ("traceidratio", "0.5", Sampling(0.5, False)),
        ("parentbased_always_on", "", Sampling(1.0, True)),
        ("parentbased_always_off", "", Sampling(0.0, True)),
        ("parentbased_traceidratio", "0.125", Sampling(0.125, True)),
        (" ParentBased_TraceIdRatio ", "", Sampling(1.0, True)),
    ],
)
def test_standard_variables_choose_the_sampling(sampler, argument, expected):
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    assert sampling_from_environment(environ) == expected


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("jaeger_remote", "", DEFAULT),
        ("traceidratio", "many", Sampling(1.0, False)),
        ("traceidratio", "1.5", Sampling(1.0, False)),
        ("traceidratio", "nan", Sampling(1.0, False)),
    ],
)
def test_what_is_not_understood_is_ignored_with_a_warning(sampler, argument, expected, caplog):
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    with caplog.at_level(logging.WARNING):
        assert sampling_from_environment(environ) == expected
    assert len(caplog.records) == 1


def test_what_is_not_said_is_what_stands_below():
    below = Sampler(0.25, False, 5, "all")
    assert Sampling().over(below) == below
    assert Sampling(0.5).over(below) == Sampler(0.5, False, 5, "all")
    assert Sampling(0.0, True, 7, "none").over(below) == Sampler(0.0, True, 7, "none")
    assert Sampler().slow_ns == DEFAULT_SLOW_NS


@pytest.mark.parametrize(
    ("follow_parent", "parent_sampled", "may"),
    [(True, None, True), (True, True, True), (True, False, False), (False, False, True)],
)
def test_caller_that_is_followed_can_forbid_late_sampling(follow_parent, parent_sampled, may):
    assert Sampler(0.0, follow_parent).decide_late(parent_sampled) is may


@pytest.mark.parametrize(
    ("errors", "minded"),
    [
        ("none", set()),
        ("server", {Outcome.EXPIRED, Outcome.FAILED, Outcome.BUG, Outcome.UNAVAILABLE}),
        ("all", set(Outcome) - {Outcome.OK}),
    ],
)
def test_policy_says_which_failures_are_traced(errors, minded):
    assert {outcome for outcome in Outcome if Sampler(errors=errors).minds(outcome)} == minded

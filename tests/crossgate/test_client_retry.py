import math
import pickle

import grpc
import pytest
from grpc import StatusCode

import crossgate
from crossgate import CrossgateError, DeadlineExceeded, Unavailable
from crossgate.attempts import Attempts
from crossgate.endpoints import Endpoints
from crossgate.errors import error_of
from crossgate.retry import Failure, RetryPolicy

POLICY = RetryPolicy(max_attempts=4, initial_backoff_s=0.1, max_backoff_s=0.3, multiplier=2)


def failure(
    code=StatusCode.UNAVAILABLE, attempts=1, pushback=None, untried=False, remaining_s=None, jitter=0.0
):
    return Failure(code, attempts, pushback, untried, remaining_s, jitter)


@pytest.mark.parametrize(
    ("snapshot", "delay_s"),
    [
        # the pause doubles, is capped, and is drawn from its upper half
        (failure(attempts=1, jitter=0.0), 0.05),
        (failure(attempts=1, jitter=0.5), 0.075),
        (failure(attempts=2, jitter=0.0), 0.1),
        (failure(attempts=3, jitter=0.0), 0.15),
        # no attempts left
        (failure(attempts=4), None),
        (failure(attempts=4, pushback="1"), None),
        # another gateway is tried at once
        (failure(untried=True), 0.0),
        (failure(attempts=4, untried=True), None),
        # the server's word wins
        (failure(pushback="700"), 0.7),
        (failure(pushback="700", untried=True), 0.7),
        (failure(pushback="0"), 0.0),
        (failure(pushback="-1", untried=True), None),
        (failure(pushback="soon"), None),
        (failure(StatusCode.RESOURCE_EXHAUSTED), None),
        (failure(StatusCode.RESOURCE_EXHAUSTED, untried=True), None),
        (failure(StatusCode.RESOURCE_EXHAUSTED, pushback="20"), 0.02),
        (failure(StatusCode.RESOURCE_EXHAUSTED, pushback="-5"), None),
        # never past the deadline
        (failure(remaining_s=0.06), 0.05),
        (failure(remaining_s=0.05), None),
        (failure(untried=True, remaining_s=0.0), None),
        (failure(StatusCode.RESOURCE_EXHAUSTED, pushback="2000", remaining_s=1.0), None),
        *(
            (failure(code, pushback="1", untried=True), None)
            for code in StatusCode
            if code.name not in ("UNAVAILABLE", "RESOURCE_EXHAUSTED")
        ),
    ],
)
def test_a_failure_decides_the_delay(snapshot, delay_s):
    assert POLICY.delay_s(snapshot) == (None if delay_s is None else pytest.approx(delay_s))


def test_gateways_take_turns():
    endpoints = Endpoints(["a", "b", "c"])
    assert [endpoints.choose(0) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_a_call_prefers_a_gateway_it_has_not_tried():
    endpoints = Endpoints(["a", "b", "c"])
    endpoints.choose(0)
    assert endpoints.choose(0, [0, 1]) == 2
    assert endpoints.choose(0, [0, 1, 2]) in (0, 1, 2)


def test_a_resting_gateway_is_passed_over_until_it_has_rested():
    endpoints = Endpoints(["a", "b"], rest_s=1.0)
    endpoints.rest(0, 10.0)
    assert [endpoints.choose(10.5) for _ in range(4)] == [1, 1, 1, 1]
    assert {endpoints.choose(11.0) for _ in range(2)} == {0, 1}


def test_when_all_rest_they_take_turns_again():
    endpoints = Endpoints(["a", "b"], rest_s=1.0)
    endpoints.rest(0, 10.0)
    endpoints.rest(1, 10.0)
    assert {endpoints.choose(10.5) for _ in range(2)} == {0, 1}


@pytest.mark.parametrize(
    ("targets", "error"), [([], ValueError), ("", ValueError), (["a", " "], ValueError), ([8001], TypeError)]
)
def test_endpoints_must_be_addresses(targets, error):
    with pytest.raises(error):
        Endpoints(targets)


def attempts_of(time_, timeout_s, targets=("a",)):
    return Attempts(Endpoints(targets), POLICY, timeout_s=timeout_s, clock=time_.clock, random=lambda: 0.0)


def test_one_deadline_covers_all_attempts(time_):
    attempts = attempts_of(time_, 1.0)
    assert attempts.next().timeout_s == pytest.approx(1.0)
    time_.sleep(0.4)
    time_.sleep(attempts.failed(Unavailable("no")))
    assert attempts.next().timeout_s == pytest.approx(0.55)


def test_oversleeping_the_deadline_raises_the_last_error(time_):
    attempts = attempts_of(time_, 1.0)
    attempts.next()
    error = Unavailable("no")
    assert attempts.failed(error) is not None
    time_.sleep(2.0)
    with pytest.raises(Unavailable) as caught:
        attempts.next()
    assert caught.value is error


def test_the_last_error_tells_of_the_earlier_ones(time_):
    attempts = attempts_of(time_, None, ("a", "b"))
    attempts.next()
    assert attempts.failed(Unavailable("first", endpoint="a")) == 0.0
    attempts.next()
    last = CrossgateError("second")
    assert attempts.failed(last) is None
    assert last.__notes__ == ["attempt 1 failed with UNAVAILABLE: first (from a)"]


@pytest.mark.parametrize("timeout_s", [None, math.inf])
def test_a_call_may_have_no_deadline(time_, timeout_s):
    assert attempts_of(time_, timeout_s).next().timeout_s is None


@pytest.mark.parametrize("timeout_s", [0, -3.0, -math.inf])
def test_a_spent_budget_allows_no_attempt(time_, timeout_s):
    with pytest.raises(DeadlineExceeded):
        attempts_of(time_, timeout_s).next()


def test_a_timeout_must_be_a_number(time_):
    with pytest.raises(ValueError, match="timeout_s"):
        attempts_of(time_, math.nan)


class Failed(grpc.RpcError):
    def __init__(self, code):
        self._code = code

    def code(self):
        return self._code

    def details(self):
        return None

    def trailing_metadata(self):
        return None


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("INVALID_ARGUMENT", "InvalidRequest"),
        ("NOT_FOUND", "NotFound"),
        ("UNAVAILABLE", "Unavailable"),
        ("RESOURCE_EXHAUSTED", "Exhausted"),
        ("DEADLINE_EXCEEDED", "DeadlineExceeded"),
        ("UNAUTHENTICATED", "Unauthenticated"),
        ("PERMISSION_DENIED", "PermissionDenied"),
        ("INTERNAL", "ModelFailed"),
        ("UNIMPLEMENTED", "NotOffered"),
        ("CANCELLED", "Cancelled"),
        ("ABORTED", "CrossgateError"),
    ],
)
def test_each_status_has_its_class(code, name):
    error = error_of(Failed(StatusCode[code]), "a")
    assert type(error) is getattr(crossgate, name)
    assert (error.code, error.details, error.trailing_metadata, error.endpoint) == (
        StatusCode[code],
        "",
        (),
        "a",
    )


def test_errors_survive_pickling():
    error = crossgate.Exhausted("full", trailing_metadata=(("a", "b"),), endpoint="x:1")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.trailing_metadata) == (
        type(error),
        str(error),
        error.trailing_metadata,
    )

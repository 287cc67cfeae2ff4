from __future__ import annotations

from pathlib import Path

import pytest

from gateway.workerpool.remote.trust import Trust, TrustInvalid, is_loopback

HERE = Path(__file__)
TLS = Trust(HERE, HERE, HERE, frozenset({"pool.example"}))


@pytest.mark.parametrize(
    ("trust", "host", "identity", "refusal"),
    [
        (Trust(), "127.0.0.1", "", ""),
        (Trust(), "10.0.0.7", "", "no TLS"),
        (Trust(insecure=True), "10.0.0.7", "", ""),
        (Trust(), "10.0.0.7", "pool.example", "no CA"),
        (Trust(insecure=True), "10.0.0.7", "pool.example", "no CA"),
        (TLS, "10.0.0.7", "pool.example", ""),
        (TLS, "10.0.0.7", "other.example", "none of those that are allowed"),
        (TLS, "10.0.0.7", "", "no TLS"),
    ],
)
def test_who_may_be_connected_to(trust, host, identity, refusal):
    said = trust.refusal(host, identity)
    assert refusal in said
    assert bool(said) is bool(refusal)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.3.2.1", True),
        ("[::1]", True),
        ("127.evil.example", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback_is_known_by_its_address(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("trust", "message"),
    [
        (Trust(ca=HERE), "belong together"),
        (Trust(HERE, HERE, HERE), "identities"),
        (Trust(identities=frozenset({"x"})), "identities"),
        (Trust(HERE, HERE, Path("/nowhere"), frozenset({"x"})), "/nowhere cannot be read"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(trust, message):
    with pytest.raises(TrustInvalid, match=message):
        trust.check()


def test_complete_options_are_not_refused():
    assert TLS.check() is None
    assert Trust().check() is None

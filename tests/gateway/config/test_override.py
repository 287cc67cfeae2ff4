"""What an override's value may be, and what is said of one that is none."""

from __future__ import annotations

import json

import msgspec
import pytest

from gateway.config.errors import DocumentInvalid
from gateway.config.override import Override, read_override

GOOD = {"patch": {"retry": "never"}, "for_s": 60, "by": "me", "change": "c1", "at": "2026-01-01T00:00:00Z"}


def test_what_is_written_is_read():
    override = Override({"labels": {"stable": None}}, 90.5, "me", "c1", "2026-01-01T00:00:00Z", "a test")
    assert read_override(msgspec.json.encode(override)) == override


def test_why_may_be_left_out_and_what_a_newer_release_adds_is_passed_over():
    assert read_override(json.dumps({**GOOD, "tomorrow": 1}).encode()).why == ""


@pytest.mark.parametrize("key", GOOD)
def test_everything_else_is_required(key):
    with pytest.raises(DocumentInvalid, match=key):
        read_override(json.dumps({k: v for k, v in GOOD.items() if k != key}).encode())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"", "no override"),
        (b"{", "no override"),
        (b"[]", "no override"),
        (json.dumps({**GOOD, "patch": []}).encode(), "patch"),
        (json.dumps({**GOOD, "for_s": "long"}).encode(), "for_s"),
        (json.dumps(GOOD).encode().replace(b"never", b"\xff"), "no override"),
        (b'{"patch":' + b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_is_none_is_refused_with_its_reason(value, said):
    with pytest.raises(DocumentInvalid, match=said):
        read_override(value)

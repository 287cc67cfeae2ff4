from __future__ import annotations

import json

import msgspec
import pytest

from gateway.config.registration import (
    Registration,
    RegistrationInvalid,
    read_registration,
    write_registration,
)

GOOD = Registration("gpu-1", "cuda:0,capacity=2", "cuda:0", 2, "grpc://h:1", 7, "0.1.0", 1, 1, (0, 1))


def test_registration_is_read_as_it_was_written():
    assert GOOD.key == "workers/gpu-1/cuda_0+capacity-2"
    assert read_registration(GOOD.key, write_registration(GOOD)) == GOOD


def test_field_of_a_later_release_is_passed_over():
    later = json.dumps({**json.loads(write_registration(GOOD)), "colour": "blue"}).encode()
    assert read_registration(GOOD.key, later) == GOOD


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        write_registration(msgspec.structs.replace(GOOD, device="gpu")),
        write_registration(msgspec.structs.replace(GOOD, slot="cuda:1")),
        write_registration(msgspec.structs.replace(GOOD, node="a/b")),
        write_registration(msgspec.structs.replace(GOOD, capacity=0)),
        write_registration(msgspec.structs.replace(GOOD, address="")),
        write_registration(msgspec.structs.replace(GOOD, address="grpc://h:1\n")),
        write_registration(msgspec.structs.replace(GOOD, identity="x" * 301)),
    ],
)
def test_what_is_no_registration_of_its_key_is_refused(value):
    with pytest.raises(RegistrationInvalid, match=f"^{GOOD.key.replace('+', '.')}"):
        read_registration(GOOD.key, value)

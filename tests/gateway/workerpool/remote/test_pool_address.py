from __future__ import annotations

import pytest

from gateway.workerpool.remote.address import PoolAddress, PoolAddressInvalid, parse_pool_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/x.sock", PoolAddress(path="/run/x.sock")),
        ("unix:///run/x.sock", PoolAddress(path="/run/x.sock")),
        ("grpc://10.0.0.7:9100", PoolAddress(host="10.0.0.7", port=9100)),
        ("grpc://[::1]:9100/", PoolAddress(host="[::1]", port=9100)),
        ("grpc://gpu-1.example:0", PoolAddress(host="gpu-1.example", port=0)),
    ],
)
def test_addresses_are_read(text, address):
    assert parse_pool_address(text) == address
    assert parse_pool_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x.sock",
        "unix:x.sock",
        f"unix:/{'x' * 107}",
        "grpc://host",
        "grpc://host:70000",
        "grpc://:1",
        "tcp://h:1",
    ],
)
def test_what_is_no_address_says_what_is(text):
    with pytest.raises(PoolAddressInvalid, match=r"expected|at most"):
        parse_pool_address(text)

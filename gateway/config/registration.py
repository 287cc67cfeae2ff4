"""What a pool writes of each of its slots into the store: `workers/<node>/<slot>`, under a lease.

It is a claim. A gateway believes what the pool's certificate confirms and what the pool itself answers.
"""

from __future__ import annotations

import msgspec

from gateway.config.device import Device, parse_device
from gateway.config.keys import is_name, worker_key

_MAX_TEXT = 300


class RegistrationInvalid(Exception):
    """What stands under a key is no registration of that slot; the message says why."""


class Registration(msgspec.Struct, frozen=True):
    """`slot` is its name at its pool. `address` is `unix:/path` or `grpc://host:port`; `identity` is the name
    in the pool's certificate, empty without TLS. `runtimes` are those that are installed there. `pid` and
    `release` are the pool's; `machine` is the same for all processes of one machine since it has booted.
    """

    node: str
    slot: str
    device: str
    capacity: int
    address: str
    pid: int
    release: str
    protocol_min: int
    protocol_max: int
    cpus: tuple[int, ...] = ()
    identity: str = ""
    runtimes: tuple[str, ...] = ()
    memory_bytes: int | None = None
    machine: str = ""

    @property
    def key(self) -> str:
        return worker_key(self.node, self.slot)

    @property
    def parsed_device(self) -> Device:
        """Cannot raise on one that was read."""
        return parse_device(self.device)


def write_registration(registration: Registration) -> bytes:
    return msgspec.json.encode(registration)


def read_registration(key: str, value: bytes) -> Registration:
    """Return what stands under a key.

    Raises:
        RegistrationInvalid
    """
    try:
        found = msgspec.json.decode(value, type=Registration)
        parse_device(found.device)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise RegistrationInvalid(f"{key}: {error}") from error
    if not is_name(found.node):
        raise RegistrationInvalid(f"{key}: {found.node!r:.100} is no name of a node")
    if found.key != key:
        raise RegistrationInvalid(f"{key}: it is of the slot {found.slot!r:.100} of node {found.node}")
    texts = (found.slot, found.address, found.identity, found.release, found.machine, *found.runtimes)
    if not all(len(text) <= _MAX_TEXT and text.isprintable() for text in texts):
        raise RegistrationInvalid(f"{key}: a text is too long or not printable")
    if found.capacity < 1 or not found.address:
        raise RegistrationInvalid(f"{key}: it needs a capacity from 1 and an address")
    return found

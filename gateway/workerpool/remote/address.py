"""Where a pool listens: `unix:/run/pool.sock` or `grpc://host:9100`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HOST_AND_PORT = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
_MAX_PATH_BYTES = 107  # of sun_path in Linux, less the zero behind it


class PoolAddressInvalid(Exception):
    """The text is no address of a pool; the message says what is."""


@dataclass(frozen=True, slots=True)
class PoolAddress:
    """Either `path` or `host` and `port`. An IPv6 address is in brackets."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"grpc://{self.target}"

    @property
    def target(self) -> str:
        return f"{self.host}:{self.port}"


def parse_pool_address(text: str) -> PoolAddress:
    """Raises PoolAddressInvalid."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise PoolAddressInvalid(f"{text!r}: expected unix:/path, with the whole path")
        if len(path.encode()) > _MAX_PATH_BYTES or "\0" in path:
            raise PoolAddressInvalid(f"{text!r}: the path of a socket has at most {_MAX_PATH_BYTES} bytes")
        return PoolAddress(path=path)
    if text.startswith("grpc://"):
        return parse_host_and_port(text.removeprefix("grpc://"))
    raise PoolAddressInvalid(f"{text!r}: expected unix:/path or grpc://host:port")


def parse_host_and_port(text: str) -> PoolAddress:
    """Raises PoolAddressInvalid."""
    found = _HOST_AND_PORT.fullmatch(text.removesuffix("/"))
    if found is None or int(found["port"]) > 65535:
        raise PoolAddressInvalid(f"{text!r}: expected host:port, such as 10.0.0.7:9100 or [::1]:9100")
    return PoolAddress(host=found["host"], port=int(found["port"]))

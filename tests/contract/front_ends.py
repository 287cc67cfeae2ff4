"""The front ends that are under contract, and how the gateway is started with each."""

from __future__ import annotations

from typing import Final

FRONT_ENDS: Final = {"grpcio": ()}  # {front end: what the command line needs for it}
MESSAGE_LIMIT_MIB: Final = 1
SERVE: Final = ("--slot", "cpu,capacity=8", "--max-message-mib", str(MESSAGE_LIMIT_MIB))

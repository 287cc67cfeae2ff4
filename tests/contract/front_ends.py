"""The front ends that are under contract, and how the gateway is started with each."""

from __future__ import annotations

import os
from typing import Final

from gateway.frontend.choice import find_native

# {front end: what the command line needs for it}; the native one where it is there, or has to be
FRONT_ENDS: Final = {"grpcio": ("--frontend", "grpcio")}
if find_native().module is not None or os.environ.get("CROSSGATE_REQUIRE_NATIVE") == "1":
    FRONT_ENDS["native"] = ("--frontend", "native")

MESSAGE_LIMIT_MIB: Final = 1
SERVE: Final = ("--slot", "cpu,capacity=8", "--max-message-mib", str(MESSAGE_LIMIT_MIB))

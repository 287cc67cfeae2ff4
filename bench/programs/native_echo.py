"""The native transport alone: no Python per request, no policy, no worker; every answer is the same message.

Started as `python -P native_echo.py FILE` with the message in FILE; prints `ready grpc=ADDRESS`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from gateway import _native


def serve(answer: bytes) -> None:
    echo = _native.Echo("127.0.0.1", 0, answer)
    print(f"ready grpc=127.0.0.1:{echo.port}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    echo.close()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    serve(Path(sys.argv[1]).read_bytes())

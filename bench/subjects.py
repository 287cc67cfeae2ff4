"""Everything that can be measured, by name: `peer` or `peer:mode`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.loaded_server import LoadedServer
from bench.peers.aio_echo import AioEcho
from bench.peers.crossgate import Crossgate
from bench.peers.mlserver import MlServer
from bench.peers.native_echo import NativeEcho
from bench.peers.raw_onnxruntime import RawOnnxRuntime
from bench.peers.triton_python import TritonPython

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.load import LoadGenerator
    from bench.peers.server import Server
    from bench.subject import Subject

SERVERS: dict[str, Callable[[str], Server]] = {  # {peer: mode -> a new server}; the mode may be empty
    "crossgate": Crossgate,
    "aio-echo": AioEcho,
    "native-echo": lambda mode: NativeEcho(),
    "triton-python": lambda mode: TritonPython(),
    "mlserver": MlServer,
}
RAW = "onnxruntime"
SUBJECTS = (*SERVERS, RAW)


def subject(name: str, generators: Sequence[LoadGenerator]) -> Subject:
    """Raises KeyError for a name that is not among `SUBJECTS`."""
    peer, _, mode = name.partition(":")
    if peer == RAW:
        return RawOnnxRuntime()
    return LoadedServer(SERVERS[peer](mode), generators)

"""Everything that can be measured, by name: `peer` or `peer:mode`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.loaded_server import LoadedServer
from bench.peers.aio_echo import AioEcho
from bench.peers.crossgate import Crossgate
from bench.peers.mlserver import MlServer
from bench.peers.raw_onnxruntime import RawOnnxRuntime
from bench.peers.triton_python import TritonPython

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.subject import Subject

SUBJECTS: dict[str, Callable[[str], Subject]] = {  # {peer: mode -> a new subject}; the mode may be empty
    "crossgate": lambda mode: LoadedServer(Crossgate(frontend=mode)),
    "aio-echo": lambda mode: LoadedServer(AioEcho(mode)),
    "onnxruntime": lambda mode: RawOnnxRuntime(),
    "triton-python": lambda mode: LoadedServer(TritonPython()),
    "mlserver": lambda mode: LoadedServer(MlServer(mode)),
}

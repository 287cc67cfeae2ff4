"""An MLServer runtime that calls ONNX Runtime, pinned to `cpu` unless that is null."""

from __future__ import annotations

import os

import onnxruntime as ort
from mlserver import MLModel  # type: ignore[import-not-found]  # exists only in the peer's environment
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]  # likewise
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]  # likewise


class OnnxModel(MLModel):  # type: ignore[misc]  # its base is untyped here
    async def load(self) -> bool:
        extra = self.settings.parameters.extra
        if extra["cpu"] is not None:
            os.sched_setaffinity(0, {extra["cpu"]})
        options = ort.SessionOptions()
        options.intra_op_num_threads = extra["threads"]
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(extra["path"], options, providers=["CPUExecutionProvider"])
        self.output_names = [output.name for output in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feed = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        results = self.session.run(self.output_names, feed)
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[
                NumpyCodec.encode_output(name, result)
                for name, result in zip(self.output_names, results, strict=True)
            ],
        )

"""Triton's Python back end calling ONNX Runtime: becomes `model.py` of a Triton model.

Requests of one batch are run in groups of one padded length, so no group holds more padding than its bucket.
It reads `bench` (CPU, threads, buckets) from the model configuration's parameters and runs inside Triton's
stub process.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # only inside Triton


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        settings = json.loads(config["parameters"]["bench"]["string_value"])
        os.sched_setaffinity(0, {settings["cpu"]})
        self.buckets: list[int] = settings["buckets"]
        self.inputs = [entry["name"] for entry in config["input"]]
        self.outputs = [entry["name"] for entry in config["output"]]
        options = ort.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        feeds = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        responses: list[Any] = [None] * len(requests)
        groups: dict[int, list[int]] = {}  # {padded length: indices of requests}
        for index, feed in enumerate(feeds):
            groups.setdefault(self._padded_length(feed), []).append(index)
        for length, members in groups.items():
            self._run(length, members, feeds, responses)
        return responses

    def _padded_length(self, feed: dict[str, Any]) -> int:
        if not self.buckets:
            return 0
        length = int(feed[self.inputs[0]].shape[1])
        return next((bucket for bucket in self.buckets if bucket >= length), length)

    def _run(
        self, length: int, members: list[int], feeds: list[dict[str, Any]], responses: list[Any]
    ) -> None:
        batch = {
            name: np.concatenate([_padded(feeds[index][name], length) for index in members])
            for name in self.inputs
        }
        results = self.session.run(self.outputs, batch)
        at = 0
        for index in members:
            first = feeds[index][self.inputs[0]]
            rows = slice(at, at + len(first))
            at = rows.stop
            tensors = []
            for name, result in zip(self.outputs, results, strict=True):
                part = result[rows, : first.shape[1]] if length else result[rows]
                tensors.append(pb_utils.Tensor(name, np.ascontiguousarray(part)))
            responses[index] = pb_utils.InferenceResponse(tensors)


def _padded(array: Any, length: int) -> Any:
    missing = length - array.shape[1] if length else 0
    return np.pad(array, ((0, 0), (0, missing))) if missing > 0 else array

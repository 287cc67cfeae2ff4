"""ONNX Runtime alone, in one pinned process: the most that any server on the same CPU can reach.

Started as `python -P raw_onnxruntime.py MODEL CPU THREADS INPUTS.npz...`, one file of batch-1 inputs per
length. Reads one JSON command a line, `{"inputs": index, "batch": n, "seconds": s}`, and answers with one
JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np
import onnxruntime as ort


def run(
    session: ort.InferenceSession, inputs: dict[str, Any], batch: int, seconds: float
) -> dict[str, float]:
    feed = {name: np.ascontiguousarray(np.repeat(array, batch, axis=0)) for name, array in inputs.items()}
    session.run(None, feed)
    durations_s: list[float] = []
    cpu_start_s, start_s = time.process_time(), time.perf_counter()
    at_s = start_s
    while at_s - start_s < seconds or len(durations_s) < 2:
        session.run(None, feed)
        now_s = time.perf_counter()
        durations_s.append(now_s - at_s)
        at_s = now_s
    cpu_s = time.process_time() - cpu_start_s
    p50_s, p99_s = np.percentile(durations_s, [50, 99])
    return {
        "items": len(durations_s) * batch,
        "wall_s": at_s - start_s,
        "cpu_s": cpu_s,
        "p50_us": float(p50_s) * 1e6,
        "p99_us": float(p99_s) * 1e6,
    }


def main(model: str, cpu: str, threads: str, *files: str) -> None:
    os.sched_setaffinity(0, {int(cpu)})
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = [dict(np.load(file)) for file in files]
    print("ready", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        result = run(session, inputs[command["inputs"]], command["batch"], command["seconds"])
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Statistics of one model version in the terms of Triton's `ModelStatistics`, as an immutable copy.

Arithmetic: triton-inference-server/core, `src/infer_stats.cc` (`UpdateSuccessWithDuration`, `UpdateFailure`,
`UpdateInferBatchStatsWithDuration`).
"""

from __future__ import annotations

import msgspec


class Duration(msgspec.Struct, frozen=True):
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0


class InferenceStatistics(msgspec.Struct, frozen=True):
    """Per request. All but `fail` count successful requests; the compute durations of a batch are added
    once for each of its requests."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class BatchStatistics(msgspec.Struct, frozen=True):
    """Per execution of one batch size, which is in rows."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class VersionStatistics(msgspec.Struct, frozen=True):
    """`last_inference_ms` is since the epoch, 0 before the first; `inference_count` counts rows,
    `execution_count` runs."""

    model: str
    version: str
    last_inference_ms: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: tuple[BatchStatistics, ...]  # by rising batch size

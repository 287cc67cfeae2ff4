"""Pinning a process to its slot, before any runtime is imported: what is imported later inherits it in every
thread.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Numeric libraries read these at import; a runtime's own thread count is set explicitly for each session.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def pin(cpus: Sequence[int]) -> None:
    """Restrict this process to `cpus` (all when empty) and keep numeric libraries from starting threads of
    their own.

    Raises:
        OSError: a CPU is not there or not allowed.
    """
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = "1"
    if cpus:
        os.sched_setaffinity(0, cpus)

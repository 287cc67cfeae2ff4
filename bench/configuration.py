"""`python -m bench configuration`: how soon changes act, and what they and an absent etcd cost requests."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import (
    configuration_declared,
    configuration_latency,
    configuration_outage,
    configuration_switches,
)
from bench.configuration_outcome import Outcome
from bench.load import LoadFailed
from bench.peers.process import StartFailed
from gateway.config.store.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from bench.configuration_setting import Setting

SCENARIOS: Final[Mapping[str, Callable[[Setting], Coroutine[None, None, Outcome]]]] = {
    module.NAME: module.measure
    for module in (
        configuration_latency,
        configuration_declared,
        configuration_switches,
        configuration_outage,
    )
}


def run(name: str, setting: Setting) -> Outcome:
    """Measure one scenario, in a folder of its own that is gone afterwards. What fails voids it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        try:
            return asyncio.run(SCENARIOS[name](replace(setting, folder=Path(temporary))))
        except (StartFailed, LoadFailed, StoreError) as error:
            return Outcome(name, "did not run", (), (str(error),))

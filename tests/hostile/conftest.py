"""One gateway with small limits, and clients that mean it no good.

The native front end only: its limits are this project's own. What grpcio's server makes of a hostile peer is
its authors' to test, and the gateway adds nothing to it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from gateway.frontend.choice import find_native

sys.path.append(str(Path(__file__).parent))  # the modules beside this file
sys.path.append(str(Path(__file__).parents[1] / "contract"))  # the gateway process

from gateway_process import GatewayProcess
from served_models import UNBATCHED, write_loopback
from siege import HELD_MIB, Siege

KEEPALIVE_S = 0.5
STREAMS = 1024
# {model: its options}; each runs beside the others
MODELS = {"echo": {}, "expanding": {"expand": 1000}, "waiting": {"delay_us_per_row": 50_000}}
LIMITS = (
    *("--frontend", "native", "--slot", "cpu,capacity=8"),
    *("--max-message-mib", "1", "--max-held-mib", str(HELD_MIB), "--max-concurrent-streams", str(STREAMS)),
    *("--keepalive-s", str(KEEPALIVE_S), "--keepalive-timeout-s", str(KEEPALIVE_S)),
)


def pytest_collection_modifyitems(items):
    native = find_native().module is not None or os.environ.get("CROSSGATE_REQUIRE_NATIVE") == "1"
    for item in items:
        if not native and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip("the native front end is not built"))


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory):
    """`waiting` takes long for each value; `expanding` makes a thousand of each."""
    root = tmp_path_factory.mktemp("models")
    for model, options in MODELS.items():
        instance = {"runtime": "loopback", "device": "cpu", "threads": 1, "count": 1, "options": options}
        batching = UNBATCHED | {"max_queue_size": 8192}
        write_loopback(root, model, [("x", "FP32", [-1])], instances=[instance], batching=batching)
    return root


@pytest.fixture(scope="session")
def start(model_directory, tmp_path_factory):
    def start(*arguments):
        log = tmp_path_factory.mktemp("log") / "gateway.log"
        return GatewayProcess(model_directory, log, *LIMITS, *arguments)

    return start


@pytest.fixture(scope="session")
def gateway(start):
    with start() as process:
        process.wait_for_models(sorted(MODELS))
        yield process


@pytest.fixture(scope="session")
def siege(gateway):
    return Siege(gateway)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed and "gateway" in item.funcargs:
        report.sections.append(("the end of the gateway's log", item.funcargs["gateway"].log()))
    return report

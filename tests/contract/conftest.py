"""One gateway process for each front end, with models of every datatype; its log is shown where a test
fails.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the modules beside this file

from front_ends import FRONT_ENDS, SERVE
from gateway_process import GatewayProcess
from served_models import write_models
from wire_calls import Wire


@pytest.fixture(scope="session", params=sorted(FRONT_ENDS))
def frontend_arguments(request):
    return FRONT_ENDS[request.param]


@pytest.fixture(scope="session")
def served(frontend_arguments, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    models = write_models(root)
    log = tmp_path_factory.mktemp("log") / "gateway.log"
    with GatewayProcess(root, log, *SERVE, *frontend_arguments) as process:
        process.wait_for_models(models)
        yield process, root


@pytest.fixture
def gateway(served):
    """The process. What it logs during the test goes into a failure's report."""
    return served[0]


@pytest.fixture
def model_directory(served):
    return served[1]


@pytest.fixture
def wire(gateway):
    with Wire(gateway.grpc) as connection:
        yield connection


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    result = yield
    if "gateway" in item.funcargs:
        item.log_from_byte = item.funcargs["gateway"].log_size_bytes
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.failed and "gateway" in item.funcargs:
        log = item.funcargs["gateway"].log(getattr(item, "log_from_byte", 0))
        report.sections.append(("gateway's log during this test", log))
    return report

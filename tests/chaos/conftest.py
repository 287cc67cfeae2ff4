"""Real gateways, killed, stopped and overloaded."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "integration"))  # its fixtures and the gateway

from gateway_fixtures import (
    eventually,
    models,
    module_models,
    pytest_runtest_makereport,
    start_gateway,
    start_module_gateway,
)

__all__ = [
    "eventually",
    "models",
    "module_models",
    "pytest_runtest_makereport",
    "start_gateway",
    "start_module_gateway",
]

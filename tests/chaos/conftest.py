"""Real gateways, killed, stopped and overloaded."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "integration"))  # its fixtures and the gateway
sys.path.append(str(Path(__file__).parent.parent / "store"))  # etcd
sys.path.append(str(Path(__file__).parent))  # the modules beside this file

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

"""Real gateways, real workers, real clients."""

import sys
from pathlib import Path

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

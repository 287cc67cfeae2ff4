"""`bench` is run from a checkout and not installed, so a plain `pytest` does not find it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

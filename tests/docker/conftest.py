from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # the modules beside this file
sys.path.append(str(Path(__file__).parents[1] / "store"))

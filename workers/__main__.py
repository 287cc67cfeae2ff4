"""The process's entry: pin first, import runtimes later. Started by a pool as `python -P -m workers
'<settings as JSON>'`.
"""

from __future__ import annotations

import json
import os
import sys

from workers.pinning import pin
from workers.settings import WorkerSettings


def main() -> int:
    settings = WorkerSettings(**json.loads(sys.argv[1]))
    pin(settings.cpus)
    from workers.process import WorkerProcess  # only now: what it imports may start threads

    return WorkerProcess(settings).run()


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # a runtime's threads may be busy or hang: nothing here outlives the process

"""A gateway process that another one has started, as `python -P -m gateway '<settings as JSON>'`."""

from __future__ import annotations

import sys

from gateway.control import Control, Failed
from gateway.settings import from_json


def main() -> int:
    settings = from_json(sys.argv[1])
    assert settings.inherited is not None, "who starts it says how to talk"
    control = Control.of(settings.inherited.control_fd)
    from gateway.app import CANNOT_START, serve

    try:
        serve(settings, control.send, control)
    except CANNOT_START as error:
        control.send(Failed(str(error)))
        return 1
    except ExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        control.send(Failed(str(cause)))
        if not isinstance(cause, CANNOT_START):
            raise
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Logs: one JSON object a line on stderr, or lines for people when stderr is a terminal.

The standard library's `logging` is the one channel: structlog's loggers end in it too, so that libraries,
this project and every process look alike. `configure` is called once, by whoever owns the process.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import structlog

from gateway.clock import MonotonicClock
from gateway.telemetry.repeats import Repeats

if TYPE_CHECKING:
    from typing import TextIO

    from structlog.typing import EventDict, Processor, WrappedLogger

    from gateway.clock import Clock
    from gateway.telemetry.trace import SampledContext

_EXTRA_FIELDS: Final = ("model", "version", "revision", "trace_id", "error_id")  # what `extra` may carry
LEVELS: Final = ("debug", "info", "warning", "error")


def configure(
    level: str = "info",
    *,
    pretty: bool | None = None,
    stream: TextIO | None = None,
    clock: Clock | None = None,
) -> None:
    """Send all logs of this process to `stream`, stderr unless given; `pretty` None means: if it is a
    terminal.

    Replaces the root logger's handlers. Of equal warnings (same logger, text, model and version) five
    in ten seconds are written, the next one after that says in `suppressed` how many were not. Errors
    are never suppressed: each may have an error id that a caller was told. Raises ValueError for a
    level not in LEVELS.
    """
    set_level(level)
    stream = sys.stderr if stream is None else stream
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    is_terminal = stream.isatty()
    rendering: tuple[Processor, ...]
    if is_terminal if pretty is None else pretty:
        rendering = (structlog.dev.ConsoleRenderer(colors=is_terminal, timestamp_key="time"),)
    else:
        rendering = (
            structlog.processors.format_exc_info,
            _in_order,
            structlog.processors.JSONRenderer(_dumps),
        )
    handler = logging.StreamHandler(stream)
    handler.addFilter(_LimitRepeats(Repeats(MonotonicClock() if clock is None else clock)))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(_EXTRA_FIELDS)],
            processors=[_from_record, structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of every file that changes


def set_level(level: str) -> None:
    """Change the level of all loggers that have none of their own."""
    if level not in LEVELS:
        raise ValueError(f"unknown log level {level!r}; known are {', '.join(LEVELS)}")
    logging.getLogger().setLevel(level.upper())


def bind(
    name: str,
    *,
    model: str | None = None,
    version: str | None = None,
    revision: int | None = None,
    context: SampledContext | None = None,
) -> structlog.stdlib.BoundLogger:
    """The logger `name` whose lines carry the fields that are given; `context` becomes `trace_id`.

    It writes as `configure` said last before this call.
    """
    fields: dict[str, Any] = {"model": model, "version": version, "revision": revision}
    if context is not None:
        fields["trace_id"] = context.trace_id_hex
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger.bind(**{key: value for key, value in fields.items() if value is not None})


class _LimitRepeats(logging.Filter):
    """Drops warnings that `Repeats` does not admit, and marks those after which some were dropped."""

    def __init__(self, repeats: Repeats) -> None:
        super().__init__()
        self._repeats = repeats

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        message: tuple[object, ...]
        if isinstance(record.msg, dict):  # from structlog
            fields = record.msg
            message = (record.name, str(fields.get("event")), fields.get("model"), fields.get("version"))
        else:
            try:
                text = record.getMessage()
            except Exception:
                return True  # the formatter meets the same mistake, and reports it
            message = (record.name, text, getattr(record, "model", None), getattr(record, "version", None))
        suppressed = self._repeats.admit(message)
        if suppressed:
            record.suppressed = suppressed
        return suppressed is not None


def _from_record(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    event["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
    event["level"] = record.levelname.lower()
    event["logger"] = record.name
    if hasattr(record, "suppressed"):
        event["suppressed"] = record.suppressed
    return event


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What people look for first comes first."""
    first = {key: event.pop(key) for key in ("time", "level", "event", "logger")}
    return {**first, **event}


def _dumps(event: EventDict, **_options: object) -> str:
    return json.dumps(event, default=repr)

"""Log levels, for good or for a while."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.config.wording import did_you_mean
from gateway.telemetry.logs import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

INHERIT = "inherit"
MAX_DURATION_S = 7 * 86_400.0


class LevelInvalid(ValueError):
    """No such level or logger; the message says what there is."""


class Timer(Protocol):
    """What happens later, unless it is cancelled."""

    def cancel(self) -> None: ...


class LevelSet(NamedTuple):
    """`reverts_s` is 0 where it stays."""

    level: str
    previous: str
    reverts_s: float


class _Revert(NamedTuple):
    timer: Timer
    level: int  # what it was before all levels that were set for a while


class Levels:
    """A level that was set for a while goes back to what was there before the first of such; one set for
    good stays. `later(seconds, call)` is the loop's.
    """

    def __init__(self, later: Callable[[float, Callable[[], None]], Timer]) -> None:
        self._later = later
        self._reverts: dict[str, _Revert] = {}  # {logger name: what is due}

    def set(self, level: str, logger: str = "", for_s: float | None = None) -> LevelSet:
        """Set the level of a logger, without a name that of all loggers with none of their own.

        Raises:
            LevelInvalid
        """
        number = _number(level, logger)
        if for_s is not None and not 0 < for_s <= MAX_DURATION_S:
            raise LevelInvalid(f"a level is set for more than 0 and at most {MAX_DURATION_S:.0f} seconds")
        target = _find(logger)
        previous, due = target.level, self._reverts.pop(logger, None)
        if due is not None:
            due.timer.cancel()
        target.setLevel(number)
        if for_s is not None:
            before = due.level if due is not None else previous
            timer = self._later(for_s, lambda: self._revert(logger))
            self._reverts[logger] = _Revert(timer, before)
        of, how_long = logger or "all loggers", f" for {for_s:g} s" if for_s is not None else ""
        log.warning("log level of %s: %s%s", of, level, how_long)
        return LevelSet(level, _name(previous), for_s or 0.0)

    def close(self) -> None:
        """Set all back that was set for a while."""
        for logger, due in list(self._reverts.items()):
            due.timer.cancel()
            self._revert(logger)

    def _revert(self, logger: str) -> None:
        due = self._reverts.pop(logger)
        _find(logger).setLevel(due.level)
        log.info("log level of %s is %s again", logger or "all loggers", _name(due.level))


def _number(level: str, logger: str) -> int:
    if level == INHERIT and logger:
        return logging.NOTSET
    if level not in LEVELS:
        also = f", and {INHERIT} for a logger that is named" if not logger or level != INHERIT else ""
        raise LevelInvalid(f"unknown log level {level!r}; known are {', '.join(LEVELS)}{also}")
    return int(getattr(logging, level.upper()))


def _find(logger: str) -> logging.Logger:
    """Only what is there: a misspelt name would be a logger that nobody writes to, for ever."""
    known = logging.getLogger().manager.loggerDict
    if logger and logger not in known:
        raise LevelInvalid(f"no logger {logger!r}{did_you_mean(logger, known)}")
    return logging.getLogger(logger or None)


def _name(level: int) -> str:
    return INHERIT if level == logging.NOTSET else logging.getLevelName(level).lower()

"""Time as the gateway sees it: monotonic nanoseconds, and one alarm with better than millisecond resolution.

uvloop rounds `call_later` to milliseconds, which would turn a queue delay of 200 us into none; `Alarm` is a
timerfd.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1


class Clock(Protocol):
    """Monotonic time. Tests inject one that they move by hand."""

    def now_ns(self) -> int: ...


class MonotonicClock:
    """CLOCK_MONOTONIC, which all processes of a machine share: worker timings can be compared with it."""

    now_ns = staticmethod(time.monotonic_ns)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


_libc = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """Calls `ring` on the loop at an absolute monotonic time; setting it again replaces the earlier time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._at_ns: int | None = None
        self._fd = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        loop.add_reader(self._fd, self._on_readable)

    def set(self, at_ns: int | None) -> None:
        """Ring at `at_ns`, at once when that is past; None disarms."""
        if at_ns == self._at_ns:
            return
        self._at_ns = at_ns
        value = max(at_ns, 1) if at_ns is not None else 0
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(value, 1_000_000_000)))
        if _libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def _on_readable(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # set again between the expiry and this call
        self._at_ns = None
        self._ring()

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

"""Times of a frame that leaves its machine: monotonic clocks of two machines have nothing in common.

A deadline travels as what is left of it, other times as how long ago they were. What a frame took on its way
is so added to both: a deadline moves later by it, and a run seems to have ended when its answer arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from wire.frames import Done


def left_ns(deadline_ns: int, now_ns: int) -> int:
    """Return what is left of a deadline, at least 1; 0 for none."""
    return max(deadline_ns - now_ns, 1) if deadline_ns else 0


def due_ns(left: int, now_ns: int) -> int:
    """Return the deadline of which so much is left; 0 for none."""
    return now_ns + left if left else 0


def departing(done: Done, now_ns: int) -> Done:
    """Return what became of a batch with its times as others can read them."""

    def ago(at_ns: int) -> int:
        return min(at_ns - now_ns, -1) if at_ns else 0

    return _with_times(
        done, ago(done.received_ns), ago(done.started_ns), ago(done.ran_ns), ago(done.ended_ns)
    )


def arrived(done: Done, now_ns: int) -> Done:
    """Return it with its times on this machine's clock."""

    def at(ago: int) -> int:
        return max(now_ns + ago, 1) if ago else 0

    return _with_times(done, at(done.received_ns), at(done.started_ns), at(done.ran_ns), at(done.ended_ns))


def _with_times(done: Done, received_ns: int, started_ns: int, ran_ns: int, ended_ns: int) -> Done:
    return msgspec.structs.replace(
        done, received_ns=received_ns, started_ns=started_ns, ran_ns=ran_ns, ended_ns=ended_ns
    )

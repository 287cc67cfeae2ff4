"""Copies the inputs of batches into arenas: natively where the extension is there, and large ones in a thread
of their own, so that the loop goes on meanwhile.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from gateway.extension import find_extension

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway._native import Copier
    from gateway.call import Buffer

# From this size on a batch's copies are not made on the loop's thread.
ELSEWHERE_FROM_BYTES = 256 << 10
# Below this the parts are joined and copied once more, which is cheaper in Python than one copy call each.
_JOIN_BELOW_BYTES = 64 << 10


class Copy(NamedTuple):
    """Parts that go one behind the other into `target`, which they fill exactly."""

    parts: list[Buffer]
    target: memoryview


def copy_in_python(parts: list[Buffer], target: memoryview) -> None:
    """Make one copy, under the interpreter's lock.

    Raises:
        ValueError: the parts do not fill the target exactly.
    """
    if len(parts) == 1:
        target[:] = parts[0]
    elif len(target) < _JOIN_BELOW_BYTES:
        target[:] = b"".join(parts)
    else:
        at = 0
        for part in parts:
            end = at + len(part)
            target[at:end] = part
            at = end
        if at != len(target):
            raise ValueError(f"{at} bytes for {len(target)}")


class Copying:
    """One for each loop. Without the extension everything is copied at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._native = find_extension().module
        self._copy: Callable[[list[Buffer], memoryview], None] = (
            copy_in_python if self._native is None else self._native.copy_parts
        )
        self._copier: Copier | None = None
        self._tokens = itertools.count()
        self._then: dict[int, Callable[[], None]] = {}  # {token of what is being copied: what follows}

    def copy(self, copies: list[Copy], size_bytes: int, then: Callable[[], None]) -> None:
        """Make the copies of one batch, which are `size_bytes` together, and call `then`, before this returns
        or later on the loop. Nobody else touches the targets meanwhile.

        Raises:
            ValueError: parts do not fill their target exactly.
        """
        if size_bytes < ELSEWHERE_FROM_BYTES or self._native is None:
            for parts, target in copies:
                self._copy(parts, target)
            then()
            return
        if self._copier is None:
            self._copier = self._native.Copier()
            self._loop.add_reader(self._copier.fileno(), self._on_done)
        token = next(self._tokens)
        self._copier.copy(copies, token)
        self._then[token] = then

    def _on_done(self) -> None:
        assert self._copier is not None, "the descriptor is the copier's"
        for token in self._copier.take():
            self._then.pop(token)()

    def close(self) -> None:
        """What is being copied is not followed by anything any more."""
        if self._copier is not None:
            self._loop.remove_reader(self._copier.fileno())
            self._copier.close()
            self._copier = None
        self._then.clear()

"""Arenas: shared memory that one side writes and the other reads.

Guarantees: a segment is sealed against shrinking, growing and any new writable mapping before its descriptor
is sent, and a reader maps it only after it has seen those seals, so a peer can never turn a read into SIGBUS
or change data that was checked, other than through the mapping it already has; therefore structure is never
parsed from here. Only the writer allocates; the reader says in a frame what it has read. Regions start on
64-byte boundaries.
"""

from __future__ import annotations

import bisect
import fcntl
import mmap
import os
from typing import NamedTuple

ALIGNMENT = 64
_F_SEAL_FUTURE_WRITE = 0x10  # Linux 5.1; not in the fcntl module
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE


class Region(NamedTuple):
    segment: int
    offset: int
    size_bytes: int


class ArenaFull(Exception):
    """No room now; freeing what is in use makes some."""


class RegionTooLarge(Exception):
    """No amount of freeing makes room: the request is larger than the arena's byte budget."""

    def __init__(self, size_bytes: int, budget_bytes: int) -> None:
        super().__init__(f"{size_bytes} bytes do not fit the arena's budget of {budget_bytes} bytes")
        self.size_bytes = size_bytes
        self.budget_bytes = budget_bytes


class ArenaInvalid(Exception):
    """A peer's segment is not sealed, or a reference points outside of its segment."""


def aligned(size_bytes: int) -> int:
    return (size_bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1)


class _Segment:
    """One memfd, mapped for writing, with a first-fit list of its free extents."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.fd = os.memfd_create("crossgate-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size_bytes)
        self.map = mmap.mmap(self.fd, size_bytes)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
        self.view = memoryview(self.map)
        self.free: list[tuple[int, int]] = [(0, size_bytes)]  # (offset, size), by offset, never adjacent

    def take(self, size_bytes: int) -> int | None:
        for i, (offset, room) in enumerate(self.free):
            if room >= size_bytes:
                if room == size_bytes:
                    del self.free[i]
                else:
                    self.free[i] = (offset + size_bytes, room - size_bytes)
                return offset
        return None

    def give(self, offset: int, size_bytes: int) -> None:
        free = self.free
        i = bisect.bisect(free, (offset, 0))
        if i < len(free) and offset + size_bytes == free[i][0]:
            size_bytes += free.pop(i)[1]
        if i > 0 and free[i - 1][0] + free[i - 1][1] == offset:
            offset, before = free[i - 1]
            free[i - 1] = (offset, before + size_bytes)
        else:
            free.insert(i, (offset, size_bytes))

    def close(self) -> None:
        self.view.release()
        try:
            self.map.close()
        except BufferError:
            pass  # somebody still holds a view; the mapping goes with it
        os.close(self.fd)


class ArenaWriter:
    """The writing side. Opens its segment at the first use; a region larger than a segment gets one of its
    own, and `budget_bytes` bounds all of those together.

    Not thread-safe: the owner serialises. `opened` and `retired` collect segments that the peer must be told
    of, to be drained after each call.
    """

    def __init__(self, segment_bytes: int, budget_bytes: int) -> None:
        self.segment_bytes = aligned(segment_bytes)
        self.budget_bytes = budget_bytes
        self.opened: list[tuple[int, int, int]] = []  # (segment, size in bytes, descriptor)
        self.retired: list[int] = []
        self._segments: dict[int, _Segment] = {}
        self._regions: dict[tuple[int, int], int] = {}  # {(segment, offset): size}
        self._shared: int | None = None
        self._next = 1
        self._mapped_bytes = 0
        self.used_bytes = 0

    def allocate(self, size_bytes: int) -> Region:
        """Return a region of at least `size_bytes`.

        Raises:
            ArenaFull: not now.
            RegionTooLarge: never, with this budget.
        """
        size = max(aligned(size_bytes), ALIGNMENT)
        if size > self.segment_bytes:
            return self._allocate_own(size)
        if self._shared is None:
            self._shared = self._open(self.segment_bytes)
        offset = self._segments[self._shared].take(size)
        if offset is None:
            raise ArenaFull
        return self._taken(self._shared, offset, size)

    def _allocate_own(self, size: int) -> Region:
        if size > self.budget_bytes:
            raise RegionTooLarge(size, self.budget_bytes)
        shared = self._segments[self._shared].size_bytes if self._shared is not None else 0
        if self._mapped_bytes - shared + size > self.budget_bytes:
            raise ArenaFull
        return self._taken(self._open(size), 0, size)

    def _open(self, size: int) -> int:
        segment, self._next = self._next, self._next + 1
        opened = self._segments[segment] = _Segment(size)
        self._mapped_bytes += size
        self.opened.append((segment, size, opened.fd))
        return segment

    def _taken(self, segment: int, offset: int, size: int) -> Region:
        if segment != self._shared:
            self._segments[segment].free.clear()
        self._regions[segment, offset] = size
        self.used_bytes += size
        return Region(segment, offset, size)

    def view(self, region: Region) -> memoryview:
        """Return the region's bytes, writable."""
        return self._segments[region.segment].view[region.offset : region.offset + region.size_bytes]

    def free(self, segment: int, offset: int) -> None:
        """Give a region back.

        Raises:
            ArenaInvalid: nothing was allocated there.
        """
        size = self._regions.pop((segment, offset), None)
        if size is None:
            raise ArenaInvalid(f"nothing is allocated at {segment}:{offset}")
        self.used_bytes -= size
        if segment == self._shared:
            self._segments[segment].give(offset, size)
            return
        self._mapped_bytes -= size
        self._segments.pop(segment).close()
        self.retired.append(segment)

    @property
    def mapped_bytes(self) -> int:
        return self._mapped_bytes

    def close(self) -> None:
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
        self._regions.clear()
        self._shared = None
        self._mapped_bytes = self.used_bytes = 0


class ArenaReader:
    """The reading side: maps the peer's segments read-only, once their seals are seen."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._maps: dict[int, mmap.mmap] = {}
        self.mapped_bytes = 0

    def attach(self, segment: int, size_bytes: int, fd: int) -> None:
        """Map a segment; takes ownership of `fd`.

        Raises:
            ArenaInvalid: wrong size, missing seals, a number in use, or over the byte budget.
        """
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            if seals & _SEALS != _SEALS:
                raise ArenaInvalid(
                    f"segment {segment} is not sealed against truncation and writing (seals {seals:#x})"
                )
            if os.fstat(fd).st_size != size_bytes or size_bytes <= 0:
                raise ArenaInvalid(
                    f"segment {segment} is not of the {size_bytes} bytes it was announced with"
                )
            if segment in self._maps:
                raise ArenaInvalid(f"segment {segment} was announced twice")
            if self.mapped_bytes + size_bytes > self._budget_bytes:
                raise ArenaInvalid(f"segment {segment} exceeds the budget of {self._budget_bytes} bytes")
            self._maps[segment] = mmap.mmap(fd, size_bytes, prot=mmap.PROT_READ)
            self.mapped_bytes += size_bytes
        except OSError as error:
            raise ArenaInvalid(f"segment {segment}: {error}") from error
        finally:
            os.close(fd)

    def view(self, segment: int, offset: int, size_bytes: int) -> memoryview:
        """Return bytes of a segment, read-only.

        Raises:
            ArenaInvalid: outside of the segment, or unaligned.
        """
        mapped = self._maps.get(segment)
        if (
            mapped is None
            or offset < 0
            or size_bytes < 0
            or offset + size_bytes > len(mapped)
            or offset % ALIGNMENT
        ):
            raise ArenaInvalid(f"{size_bytes} bytes at {segment}:{offset} are not within a mapped segment")
        return memoryview(mapped)[offset : offset + size_bytes]

    def retire(self, segment: int) -> None:
        """Unmap a segment, once the last view of it is gone.

        Raises:
            ArenaInvalid: it was never announced.
        """
        mapped = self._maps.pop(segment, None)
        if mapped is None:
            raise ArenaInvalid(f"segment {segment} was never announced")
        self.mapped_bytes -= len(mapped)
        _close(mapped)

    def close(self) -> None:
        for mapped in self._maps.values():
            _close(mapped)
        self._maps.clear()
        self.mapped_bytes = 0


def _close(mapped: mmap.mmap) -> None:
    try:
        mapped.close()
    except BufferError:
        pass  # a view is still out; the mapping goes with the last one

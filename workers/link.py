"""One gateway's connection: frames in, frames out, and the arenas of both directions.

`send` never blocks: what the socket does not take at once waits in a bounded queue that the process's loop
flushes, so a gateway that does not read delays nobody but itself. Safe to use from the executor's threads.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING

from wire.arena import ArenaFull, ArenaInvalid, ArenaReader, ArenaWriter, Region, RegionTooLarge
from wire.frames import Body, Frame, FrameReader, Kind, SegmentOpened, SegmentRetired, encode
from wire.sockets import receive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from workers.sessions import LoadedSession

_MAX_UNSENT_BYTES = 64 << 20


class LinkClosed(Exception):
    """The gateway is gone; whatever was to be sent is pointless."""


class Link:
    def __init__(
        self, sock: socket.socket, segment_bytes: int, budget_bytes: int, want_write: Callable[[Link], None]
    ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.greeted = False
        self.left = False  # said goodbye: it will not come back
        self.reader = ArenaReader(segment_bytes + 2 * budget_bytes)
        self.servables: dict[int, LoadedSession] = {}
        self.cancelled: set[int] = set()  # batches that wait here and are not to be started
        self.closed = False
        self._want_write = want_write
        self._frames = FrameReader()
        self._send_lock = threading.Lock()
        self._unsent: deque[tuple[bytes, list[int]]] = deque()  # (data, descriptors of ours)
        self._unsent_bytes = 0
        self._credit_lock = threading.Lock()
        self._granted = 0  # capacity that this gateway holds or has in use
        self._share = 0  # how much of it may stay there
        self._arena = ArenaWriter(segment_bytes, budget_bytes)
        self._arena_lock = threading.Lock()
        self._room = threading.Condition(self._arena_lock)  # there is some again, or the link is closed

    def receive(self) -> list[Frame]:
        """Return the frames that have arrived.

        Raises:
            EOFError, OSError: the gateway is gone.
            ProtocolError: it breaks the protocol.
        """
        try:
            data, descriptors = receive(self.socket)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        return self._frames.feed(data, descriptors)

    def send(self, kind: Kind, id: int, body: Body) -> None:
        """Send a frame, now or soon. Does nothing on a closed link."""
        self._send(encode(kind, id, body), ())

    def _send(self, data: bytes, descriptors: Sequence[int]) -> None:
        with self._send_lock:
            if self.closed:
                return
            # duplicated, because a segment may be retired before its announcement has left
            self._unsent.append((data, [os.dup(fd) for fd in descriptors]))
            self._unsent_bytes += len(data)
            try:
                if len(self._unsent) == 1:
                    self._flush()
                if self._unsent_bytes > _MAX_UNSENT_BYTES:
                    self.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # the loop sees the same and closes the link
            waits = bool(self._unsent)
        if waits:
            self._want_write(self)

    def _flush(self) -> None:
        """Send as much as the socket takes. A frame's descriptors leave with its first byte."""
        try:
            while self._unsent:
                data, descriptors = self._unsent[0]
                if descriptors:
                    sent = socket.send_fds(self.socket, [data], descriptors)
                    for fd in descriptors:
                        os.close(fd)
                else:
                    sent = self.socket.send(data)
                self._unsent_bytes -= sent
                if sent < len(data):
                    self._unsent[0] = (data[sent:], [])
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            pass

    def flush(self) -> bool:
        """Send what waits; True when nothing is left.

        Raises:
            OSError: the gateway is gone.
        """
        with self._send_lock:
            if not self.closed:
                self._flush()
            return not self._unsent

    def grant(self, share: int) -> int:
        """Set this gateway's share of the slot; return the credits to send it now. What it holds above its
        share stays here when its batches finish.
        """
        with self._credit_lock:
            self._share = share
            more = max(share - self._granted, 0)
            self._granted += more
            return more

    def returned(self, width: int) -> int:
        """A batch of this width is over; return how many of its credits go back to the gateway."""
        with self._credit_lock:
            kept = min(max(self._granted - self._share, 0), width)
            self._granted -= kept
            return width - kept

    def allocate(self, size_bytes: int) -> tuple[Region, memoryview]:
        """Return a region of the outgoing arena, waiting while it is full.

        Raises:
            RegionTooLarge: it can never fit.
            LinkClosed: the gateway went away meanwhile.
        """
        with self._arena_lock:
            while True:
                if self.closed:
                    raise LinkClosed
                try:
                    region = self._arena.allocate(size_bytes)
                    break
                except ArenaFull:
                    self._room.wait()
            self._announce()
            return region, self._arena.view(region)

    def _announce(self) -> None:
        for segment, size_bytes, fd in self._arena.opened:
            self._send(encode(Kind.SEGMENT, 0, SegmentOpened(segment, size_bytes), descriptors=1), (fd,))
        self._arena.opened.clear()
        for segment in self._arena.retired:
            self._send(encode(Kind.RETIRE, 0, SegmentRetired(segment)), ())
        self._arena.retired.clear()

    def freed(self, regions: Sequence[tuple[int, int]]) -> None:
        """The gateway has read these regions. Does nothing on a closed link, which has none any more.

        Raises:
            ArenaInvalid: one of them was not allocated.
        """
        with self._arena_lock:
            if self.closed:
                return
            for segment, offset in regions:
                self._arena.free(segment, offset)
            self._announce()
            self._room.notify_all()

    @property
    def arena_bytes(self) -> int:
        return self._arena.mapped_bytes + self.reader.mapped_bytes

    def close(self) -> None:
        """Close everything; waiting executors are woken and find the link closed."""
        with self._arena_lock:
            self.closed = True
            self._arena.close()
            self._room.notify_all()
        with self._send_lock:
            self.socket.close()
            for _, descriptors in self._unsent:
                for fd in descriptors:
                    os.close(fd)
            self._unsent.clear()
        self.reader.close()
        for fd in self._frames.take_descriptors():
            os.close(fd)


__all__ = ["ArenaInvalid", "Link", "LinkClosed", "RegionTooLarge"]

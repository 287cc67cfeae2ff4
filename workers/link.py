"""One gateway's connection: frames in, frames out, and the arenas of both directions.

`send` never blocks: what the socket does not take at once waits in a bounded buffer that the process's loop
flushes, so a gateway that does not read delays nobody but itself. Safe to use from the executor's threads.
"""

from __future__ import annotations

import os
import socket
import threading
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
        self.granted = 0  # capacity that this gateway holds or has in use
        self.reader = ArenaReader(segment_bytes + 2 * budget_bytes)
        self.servables: dict[int, LoadedSession] = {}
        self.cancelled: set[int] = set()
        self.closed = False
        self._want_write = want_write
        self._frames = FrameReader()
        self._send_lock = threading.Lock()
        self._unsent = bytearray()
        self._arena = ArenaWriter(segment_bytes, budget_bytes)
        self._room = threading.Condition()

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
            try:
                if descriptors:
                    # descriptors must not overtake or trail the frame that announces them
                    self._flush_blocking()
                    sent = socket.send_fds(self.socket, [data], list(descriptors))
                else:
                    sent = 0 if self._unsent else self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # the loop sees the same and closes the link
            if sent < len(data):
                self._unsent += data[sent:]
                if len(self._unsent) > _MAX_UNSENT_BYTES:
                    self.socket.shutdown(socket.SHUT_RDWR)
        if self._unsent:
            self._want_write(self)

    def _flush_blocking(self) -> None:
        self.socket.setblocking(True)
        try:
            if self._unsent:
                self.socket.sendall(self._unsent)
                self._unsent.clear()
        finally:
            self.socket.setblocking(False)

    def flush(self) -> bool:
        """Send what waits; True when nothing is left."""
        with self._send_lock:
            if self._unsent and not self.closed:
                try:
                    del self._unsent[: self.socket.send(self._unsent)]
                except BlockingIOError:
                    pass
            return not self._unsent

    def allocate(self, size_bytes: int) -> tuple[Region, memoryview]:
        """Return a region of the outgoing arena, waiting while it is full.

        Raises:
            RegionTooLarge: it can never fit.
            LinkClosed: the gateway went away meanwhile.
        """
        with self._room:
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
        """The gateway has read these regions.

        Raises:
            ArenaInvalid: one of them was not allocated.
        """
        with self._room:
            for segment, offset in regions:
                self._arena.free(segment, offset)
            self._announce()
            self._room.notify_all()

    @property
    def arena_bytes(self) -> int:
        return self._arena.mapped_bytes + self.reader.mapped_bytes

    def close(self) -> None:
        """Close everything; waiting executors are woken and find the link closed."""
        with self._room:
            self.closed = True
            self._arena.close()
            self._room.notify_all()
        with self._send_lock:
            self.socket.close()
        self.reader.close()
        for fd in self._frames.take_descriptors():
            os.close(fd)


__all__ = ["ArenaInvalid", "Link", "LinkClosed", "RegionTooLarge"]

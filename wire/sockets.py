"""Receiving bytes and descriptors from a Unix stream socket."""

from __future__ import annotations

import array
import os
import socket

READ_BYTES = 32 << 10  # stays below the size from which each allocation is a system call of its own
_MAX_DESCRIPTORS = 16
_ANCILLARY_BYTES = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
# plain numbers: operators of the enumerations cost as much as a system call
_CLOSE_ON_EXEC, _TRUNCATED = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_CTRUNC)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Return what is there: (data, descriptors); no data means that the peer has closed.

    Raises:
        BlockingIOError: nothing, on a non-blocking socket.
        OSError: the connection is broken.
    """
    data, ancillary, flags, _ = sock.recvmsg(READ_BYTES, _ANCILLARY_BYTES, _CLOSE_ON_EXEC)
    descriptors: list[int] = []
    for level, type_, payload in ancillary:
        if level == socket.SOL_SOCKET and type_ == socket.SCM_RIGHTS:
            fds = array.array("i")
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
            descriptors += fds
    if flags & _TRUNCATED:
        for fd in descriptors:
            os.close(fd)
        raise OSError("the peer sent more descriptors than the protocol allows")
    return data, descriptors

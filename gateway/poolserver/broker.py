"""The pool's socket for gateways on the same machine: hands connections to workers over to them.

Only processes of the pool's own user, and of root, get an answer.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.poolserver.workers import SlotUnknown, WorkerAway
from gateway.workerpool.remote.exchange import (
    Connect,
    Connected,
    Describe,
    Described,
    End,
    Ended,
    Exchange,
    ExchangeBroken,
    Leave,
    Refused,
    is_trusted,
)

if TYPE_CHECKING:
    from gateway.poolserver.workers import PoolWorkers
    from gateway.workerpool.remote.way import Description

log = logging.getLogger(__name__)

_QUESTION_S = 10.0
_MAX_PEERS = 256
_BACKLOG = 64


class BrokerAddressTaken(OSError):
    """Another process listens there, or something else is there."""


def open_socket(path: str) -> socket.socket:
    """Return a socket that listens, for this user alone; one that a dead process has left is replaced.

    Raises:
        BrokerAddressTaken, OSError
    """
    place = Path(path)
    with _locked(place):
        if place.exists():
            if not stat.S_ISSOCK(place.stat().st_mode):
                raise BrokerAddressTaken(f"cannot listen on {path}: it is there and is no socket")
            if _answers(path):
                raise BrokerAddressTaken(f"cannot listen on {path}: another process listens there")
            place.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            mask = os.umask(0o177)
            try:
                sock.bind(path)
            finally:
                os.umask(mask)
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        return sock


class _locked:
    """Two pools that start at once do not both replace a socket. The lock is that of the folder."""

    def __init__(self, place: Path) -> None:
        self._folder = place.parent

    def __enter__(self) -> None:
        self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # too many wait there
            return True
    return True


class Broker:
    """Owns its socket from `run` on."""

    def __init__(
        self, sock: socket.socket, path: str, workers: PoolWorkers, description: Description
    ) -> None:
        self._socket = sock
        self._path = path
        self._workers = workers
        self._description = description
        self._peers = 0
        self._links: dict[Exchange, None] = {}  # gateways that have a connection to a worker
        self._leaving = ""
        self._left = asyncio.Event()
        self._refused: set[int] = set()  # users that were logged

    @property
    def gateways(self) -> int:
        """How many links there are."""
        return len(self._links)

    async def run(self) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    sock, _ = await loop.sock_accept(self._socket)
                    exchange = Exchange(sock)
                    if self._peers >= _MAX_PEERS or not self._may_ask(exchange):
                        exchange.close()
                        continue
                    self._peers += 1
                    tasks.create_task(self._serve(exchange))
        finally:
            self._close()

    def _close(self) -> None:
        self._socket.close()
        Path(self._path).unlink(missing_ok=True)

    async def drain(self) -> None:
        """Ask all gateways to leave, and wait until they have."""
        self._leaving = "this pool ends"
        for exchange in self._links:
            self._tell(exchange)
        while self._links:
            self._left.clear()
            await self._left.wait()

    def _tell(self, exchange: Exchange) -> None:
        try:
            exchange.send(Leave(self._leaving))
        except ExchangeBroken:
            pass  # its task sees the same

    def _may_ask(self, exchange: Exchange) -> bool:
        uid = exchange.peer_uid
        if is_trusted(uid):
            return True
        if uid not in self._refused:
            self._refused.add(uid)
            log.warning("a process of user %d is refused", uid)
        return False

    async def _serve(self, exchange: Exchange) -> None:
        try:
            question, descriptor = await exchange.receive(_QUESTION_S)
            if descriptor is not None:
                os.close(descriptor)
            if isinstance(question, Connect):
                await self._connect(exchange, question)
            else:
                exchange.send(self._answer(question))
        except ExchangeBroken as error:
            log.debug("a gateway left the broker: %s", error)
        finally:
            exchange.close()
            self._peers -= 1

    def _answer(self, question: object) -> Described | Refused:
        if isinstance(question, Describe):
            found = self._description
            return Described(found.node, found.release, found.slots)
        if isinstance(question, End):
            try:
                self._workers.end(question.slot, question.pid, question.reason[:1000])
            except SlotUnknown as error:
                return Refused(str(error))
            return Refused("")
        return Refused("this is no question")

    async def _connect(self, exchange: Exchange, question: Connect) -> None:
        """Hand a connection over, and stay until the gateway or the worker has gone."""
        if self._leaving:
            exchange.send(Refused(self._leaving))
            return
        try:
            sock, pid = await self._workers.connect(question.slot)
        except (SlotUnknown, WorkerAway) as error:
            exchange.send(Refused(str(error)))
            return
        with sock:
            exchange.send(Connected(), sock.fileno())
        self._links[exchange] = None
        if self._leaving:
            self._tell(exchange)
        try:
            async with asyncio.TaskGroup() as tasks:
                gone = tasks.create_task(_until_closed(exchange))
                ended = tasks.create_task(self._workers.wait_ended(question.slot, pid))
                await asyncio.wait((gone, ended), return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    exchange.send(Ended(ended.result()))
                    await gone  # it reads this first
                ended.cancel()
        except* ExchangeBroken:
            pass
        finally:
            del self._links[exchange]
            self._left.set()


async def _until_closed(exchange: Exchange) -> None:
    try:
        await exchange.receive()
    except ExchangeBroken:
        pass

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat

import pytest

from gateway.poolserver.broker import Broker, BrokerAddressTaken, open_socket
from gateway.poolserver.workers import SlotUnknown, WorkerAway
from gateway.workerpool.link import LinkEvents
from gateway.workerpool.remote import exchange
from gateway.workerpool.remote.broker import BrokerWay
from gateway.workerpool.remote.terms import Terms
from gateway.workerpool.remote.way import Description, PoolUnreachable, SlotAway
from wire.frames import Hello, Kind, encode


class FakeWorkers:
    """A worker that is only a socket."""

    def __init__(self):
        self.failure = None
        self.sockets = []
        self.ended = []
        self.end_of_worker = asyncio.get_running_loop().create_future()

    async def connect(self, slot):
        if self.failure is not None:
            raise self.failure
        ours, theirs = socket.socketpair()
        self.sockets.append(theirs)
        theirs.send(encode(Kind.HELLO, 0, Hello(1, 1, "cpu", 3, "cpu", 2)))
        return ours, 3

    async def wait_ended(self, slot, pid):
        return await asyncio.shield(self.end_of_worker)

    def end(self, slot, pid, reason):
        if slot != "cpu":
            raise SlotUnknown("no such slot")
        self.ended.append((slot, pid, reason))


class Heard:
    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()
        self.goodbye = asyncio.get_running_loop().create_future()
        self.events = LinkEvents(None, None, lambda credits: None, self.lost.set_result)


@pytest.fixture
async def workers():
    workers = FakeWorkers()
    yield workers
    for sock in workers.sockets:
        sock.close()


@pytest.fixture
async def broker(tmp_path, workers):
    path = str(tmp_path / "pool.sock")
    broker = Broker(open_socket(path), path, workers, Description("n", "0.1.0", ("cpu",)))
    task = asyncio.ensure_future(broker.run())
    broker.path = path
    yield broker
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not os.path.exists(path)


@pytest.fixture
def way(broker):
    return BrokerWay(broker.path, Terms("g", 4096, 8192), None)


@pytest.fixture
async def opened(way):
    """Open a link that ends with the test; return it with what is heard of it."""
    moving = []

    async def begin():
        heard = Heard()
        link = await way.open("cpu", heard.events, heard.goodbye.set_result)
        moving.append((link, asyncio.ensure_future(link.move())))
        return link, heard

    yield begin
    for link, task in moving:
        link.close("the test ends")
        await task


async def test_broker_says_what_the_pool_has(way):
    assert await way.describe() == Description("n", "0.1.0", ("cpu",))


async def test_link_is_one_to_the_worker_itself(way, opened, workers):
    link, _ = await opened()
    assert (await link.greet(5.0)).capacity == 2
    workers.sockets[0].setblocking(False)
    assert await asyncio.get_running_loop().sock_recv(workers.sockets[0], 100)  # our hello


async def test_worker_that_ends_is_lost_with_the_brokers_words(opened, workers):
    link, heard = await opened()
    workers.sockets[0].close()
    workers.end_of_worker.set_result("it was killed")
    assert await link.reason_of_end(await heard.lost) == "it was killed"


async def test_link_outlives_its_broker(opened, broker, workers):
    link, heard = await opened()
    await link.greet(5.0)
    for peer in broker._links:
        peer._socket.shutdown(socket.SHUT_RDWR)
    await asyncio.wait_for(link._end, 5)  # nobody will say any more how the worker ended
    assert not heard.lost.done()
    assert workers.sockets[0].recv(100)
    workers.sockets[0].close()
    assert await link.reason_of_end(await heard.lost) == "the worker closed the connection"


async def test_pool_that_ends_asks_gateways_to_leave_and_waits(opened, broker, way):
    link, heard = await opened()
    draining = asyncio.ensure_future(broker.drain())
    assert await heard.goodbye == "this pool ends"
    assert not draining.done()
    with pytest.raises(SlotAway, match="this pool ends"):
        await way.open("cpu", Heard().events, None)
    link.close("as it was asked")
    async with asyncio.timeout(5):
        await draining


@pytest.mark.parametrize("failure", [SlotUnknown("no such slot"), WorkerAway("it is starting")])
async def test_worker_that_cannot_be_had_is_refused_with_the_reason(way, workers, failure):
    workers.failure = failure
    with pytest.raises(SlotAway, match=str(failure)):
        await way.open("cpu", Heard().events, None)


async def test_hung_worker_is_ended_on_request(way, workers):
    await way.end("cpu", 3, "it hangs")
    assert workers.ended == [("cpu", 3, "it hangs")]
    await way.end("unknown", 3, "it hangs")  # nothing to be done about it here


async def test_nonsense_is_not_answered(broker, way):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.setblocking(False)
        peer.connect(broker.path)
        peer.send(b"nonsense")
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 100), 5) == b""
    assert (await way.describe()).node == "n"


async def test_other_users_are_refused_on_both_sides(monkeypatch, way, caplog):
    monkeypatch.setattr("gateway.poolserver.broker.is_trusted", lambda uid: False)
    with pytest.raises(PoolUnreachable):
        await way.describe()
    assert "is refused" in caplog.text
    monkeypatch.setattr("gateway.workerpool.remote.broker.is_trusted", lambda uid: False)
    with pytest.raises(PoolUnreachable, match="another user"):
        await way.describe()


async def test_missing_broker_is_out_of_reach(tmp_path):
    with pytest.raises(PoolUnreachable, match="No such file"):
        await BrokerWay(str(tmp_path / "none"), Terms("g", 1, 1), None).describe()


async def test_who_is_no_broker_is_not_taken_for_one(tmp_path):
    path = str(tmp_path / "x.sock")
    with open_socket(path) as listener:
        asking = asyncio.ensure_future(BrokerWay(path, Terms("g", 1, 1), None).describe())
        peer, _ = await asyncio.get_running_loop().sock_accept(listener)
        exchange.Exchange(peer).send(exchange.Leave("what?"))
        with pytest.raises(PoolUnreachable, match="no broker"):
            await asking
        peer.close()


def test_socket_is_for_this_user_alone(tmp_path):
    path = str(tmp_path / "x.sock")
    with open_socket(path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_socket_of_a_dead_process_is_replaced(tmp_path):
    path = str(tmp_path / "x.sock")
    open_socket(path).close()
    open_socket(path).close()


def test_socket_that_answers_and_what_is_none_stay(tmp_path):
    path = str(tmp_path / "x.sock")
    with open_socket(path), pytest.raises(BrokerAddressTaken, match="another process listens"):
        open_socket(path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BrokerAddressTaken, match="is no socket"):
        open_socket(str(tmp_path / "file"))
    with pytest.raises(FileNotFoundError):
        open_socket(str(tmp_path / "missing" / "x.sock"))

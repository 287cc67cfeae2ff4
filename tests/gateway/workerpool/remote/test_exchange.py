from __future__ import annotations

import asyncio
import os
import socket

import pytest

from gateway.workerpool.remote.exchange import Connect, Connected, Exchange, ExchangeBroken, is_trusted


@pytest.fixture
def pair():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        yield Exchange(here), Exchange(there), there


async def test_message_comes_with_its_descriptor(pair):
    here, there, _ = pair
    read, write = os.pipe()
    here.send(Connected(), write)
    os.close(write)
    message, descriptor = await there.receive(5.0)
    assert message == Connected()
    os.write(descriptor, b"x")
    os.close(descriptor)
    assert os.read(read, 9) == b"x"
    os.close(read)


async def test_message_that_is_not_there_yet_is_awaited(pair):
    here, there, _ = pair
    waiting = asyncio.ensure_future(there.receive(5.0))
    await asyncio.sleep(0)
    here.send(Connect("cpu", "g"))
    assert await waiting == (Connect("cpu", "g"), None)


@pytest.mark.parametrize(
    "data", [b"{}", b"nonsense", b'{"type":"drop tables"}', b'{"type":"connect","slot":1}']
)
async def test_what_is_no_message_breaks_the_exchange(pair, data):
    here, _, raw = pair
    raw.send(data)
    with pytest.raises(ExchangeBroken):
        await here.receive(5.0)


async def test_descriptors_of_what_is_no_message_are_closed(pair):
    here, _, raw = pair
    read, write = os.pipe()
    socket.send_fds(raw, [b"{}"], [write])
    os.close(write)
    with pytest.raises(ExchangeBroken):
        await here.receive(5.0)
    assert os.read(read, 9) == b""  # nobody holds the other end
    os.close(read)


async def test_peer_that_has_gone_or_is_silent_breaks_the_exchange(pair):
    here, there, _ = pair
    with pytest.raises(ExchangeBroken, match="no answer within"):
        await here.receive(0.0)
    there.close()
    with pytest.raises(ExchangeBroken, match="has closed"):
        await here.receive(5.0)
    with pytest.raises(ExchangeBroken):
        here.send(Connected())


def test_peer_is_known_by_its_user(pair):
    assert pair[0].peer_uid == os.geteuid()
    assert is_trusted(os.geteuid())
    assert is_trusted(0)
    assert not is_trusted(os.geteuid() + 1)

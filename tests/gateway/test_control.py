from __future__ import annotations

import asyncio

import pytest

from gateway.control import Control, Failed, HandOver, Ready

READY = Ready("127.0.0.1:8001", "127.0.0.1:8000", 2, "native", 0.62)


@pytest.fixture
async def pair():
    """Both ends, and what the second one hears."""
    one, other = Control.pair()
    heard = asyncio.Queue()
    listening = Control(other)
    listening.listen(asyncio.get_running_loop(), heard.put_nowait)
    yield one, listening, heard
    for end in (one, listening):
        if end.fileno() >= 0:
            end.close(asyncio.get_running_loop())


async def test_messages_stay_whole_and_in_order(pair):
    one, _, heard = pair
    messages = [READY, Failed("a reason" * 100), HandOver()]
    for message in messages:
        one.send(message)
    assert [await heard.get() for _ in messages] == messages


async def test_the_end_of_the_peer_is_heard_behind_its_last_message(pair):
    one, _, heard = pair
    one.send(READY)
    one.close(asyncio.get_running_loop())
    assert [await heard.get(), await heard.get()] == [READY, None]


async def test_what_is_not_known_is_passed_over(pair):
    one, _, heard = pair
    for packet in (b'{"type": "of tomorrow"}', b"\xff", b"[]"):
        one._socket.send(packet)
    one.send(HandOver())
    assert await heard.get() == HandOver()


async def test_nothing_is_said_to_a_peer_that_has_ended(pair):
    one, listening, _ = pair
    listening.close(asyncio.get_running_loop())
    one.send(READY)


@pytest.mark.parametrize(
    ("ready", "line"),
    [
        (READY, "ready grpc=127.0.0.1:8001 http=127.0.0.1:8000 models=2 frontend=native in 0.6 s"),
        (
            Ready("h:1", "h:2,h:3", 0, "native", 1.06, processes=2),
            "ready grpc=h:1 http=h:2,h:3 models=0 frontend=native processes=2 in 1.1 s",
        ),
    ],
)
def test_the_line_of_readiness(ready, line):
    assert str(ready) == line

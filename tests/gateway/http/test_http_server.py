"""The listener over raw sockets. Waiting is for events and bounded by `within`, never for time to pass."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager

import pytest
import uvloop

from gateway.http.connection import Limits
from gateway.http.endpoints import Endpoints, Readiness
from gateway.http.server import HttpServer

PATIENCE_S = 10
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"


def within():
    return asyncio.timeout(PATIENCE_S)


@asynccontextmanager
async def serving(limits=None, readiness=lambda: Readiness(True), metrics=lambda: [b"a 1\n", b"b 2\n"]):
    before = asyncio.all_tasks()
    server = HttpServer(Endpoints(readiness, metrics), limits)
    address = await server.start("127.0.0.1", 0)
    try:
        yield address, server
    finally:
        async with within():
            await server.close()
    assert asyncio.all_tasks() == before, "the listener left tasks behind"


@asynccontextmanager
async def client(address):
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


async def response(reader, *, head_only=False):
    """(status, {lower-case name: value}, body) of one response"""
    async with within():
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status_line, *fields = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        body = b"" if head_only else await reader.readexactly(int(headers["content-length"]))
    return int(status_line.split()[1]), headers, body


async def ended(reader):
    """Whether the peer ends the connection without another byte"""
    async with within():
        return await reader.read() == b""


@pytest.mark.parametrize(("path", "body"), [(b"/healthz", b"ok\n"), (b"/metrics", b"a 1\nb 2\n")])
async def test_connection_serves_several_requests(path, body):
    async with serving() as (address, _), client(address) as (reader, writer):
        for _ in range(3):
            writer.write(GET % path)
            status, headers, found = await response(reader)
            assert (status, found, headers["connection"]) == (200, body, "keep-alive")


async def test_head_has_the_length_but_not_the_body():
    async with serving() as (address, _), client(address) as (reader, writer):
        writer.write(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n" + GET % b"/healthz")
        status, headers, _ = await response(reader, head_only=True)
        assert (status, headers["content-length"]) == (200, "8")
        assert (await response(reader))[2] == b"ok\n"


async def test_readiness_is_asked_each_time():
    answers = [Readiness(False, ["loading"]), Readiness(True)]
    async with serving(readiness=lambda: answers.pop(0)) as (address, _), client(address) as (reader, writer):
        writer.write(GET % b"/readyz")
        status, _, body = await response(reader)
        assert (status, json.loads(body)) == (503, {"ready": False, "reasons": ["loading"], "notes": []})
        writer.write(GET % b"/readyz")
        assert (await response(reader))[0] == 200


async def test_pipelined_requests_are_answered_in_order():
    async with serving() as (address, _), client(address) as (reader, writer):
        writer.write(
            b"".join(GET % path for path in (b"/healthz", b"/metrics", b"/nope", b"/metrics", b"/healthz"))
        )
        found = [await response(reader) for _ in range(5)]
        assert [status for status, _, _ in found] == [200, 200, 404, 200, 200]
        assert [body for _, _, body in found if body.startswith(b"a 1")] == [b"a 1\nb 2\n"] * 2


async def test_request_may_come_byte_by_byte():
    async with serving() as (address, _), client(address) as (reader, writer):
        for byte in b"\r\n" + GET % b"/healthz":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await response(reader))[0] == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20 + b"\r\n", 431),
        (b"a" * 100_000, 431),
    ],
)
async def test_request_that_cannot_be_understood_ends_the_connection(request_, status):
    async with (
        serving(Limits(head_bytes=1024, fields=16)) as (address, _),
        client(address) as (reader, writer),
    ):
        writer.write(request_ + GET % b"/healthz")
        found, headers, _ = await response(reader)
        assert (found, headers["connection"]) == (status, "close")
        assert await ended(reader)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    ],
)
async def test_connection_ends_after_a_body_or_when_asked(request_, status):
    async with serving() as (address, _), client(address) as (reader, writer):
        writer.write(request_)
        found, headers, _ = await response(reader)
        assert (found, headers["connection"]) == (status, "close")
        assert await ended(reader)


@pytest.mark.parametrize("path", [b"/healthz", b"/metrics"])
async def test_half_closed_client_still_gets_its_answers(path):
    async with serving() as (address, _), client(address) as (reader, writer):
        writer.write(GET % path + GET % path)
        writer.write_eof()
        assert [(await response(reader))[0] for _ in range(2)] == [200, 200]
        assert await ended(reader)


def failing_pieces():
    yield b"a 1\n"
    raise RuntimeError("broken source")


def failing_call():
    raise RuntimeError("broken source")


@pytest.mark.parametrize("metrics", [failing_call, failing_pieces])
async def test_failing_source_is_answered_500_and_logged(metrics, caplog):
    async with serving(metrics=metrics) as (address, _):
        async with client(address) as (reader, writer):
            writer.write(GET % b"/metrics")
            status, _, body = await response(reader)
            assert status == 500
            assert b"broken source" not in body
            assert await ended(reader)
        async with client(address) as (reader, writer):
            writer.write(GET % b"/healthz")
            assert (await response(reader))[0] == 200
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "broken source" in str(record.exc_info)


async def test_other_work_runs_between_the_pieces():
    order = []

    def metrics():
        for n in range(3):
            order.append(n)
            asyncio.get_running_loop().call_soon(order.append, f"after {n}")
            yield b"x"

    async with serving(metrics=metrics) as (address, _), client(address) as (reader, writer):
        writer.write(GET % b"/metrics")
        assert (await response(reader))[2] == b"xxx"
    assert order == [0, "after 0", 1, "after 1", 2, "after 2"]


async def test_idle_connection_is_closed():
    async with serving(Limits(idle_timeout_s=0.05)) as (address, _), client(address) as (reader, _writer):
        assert await ended(reader)


async def test_slow_request_is_answered_408():
    async with serving(Limits(idle_timeout_s=0.05)) as (address, _), client(address) as (reader, writer):
        writer.write(b"GET /healthz HT")
        assert (await response(reader))[0] == 408
        assert await ended(reader)


async def test_client_that_does_not_read_is_cut_off():
    made = 0

    def metrics():
        nonlocal made
        made += 1
        yield b"x" * 1_000_000

    limits = Limits(idle_timeout_s=0.1)
    async with serving(limits, metrics=metrics) as (address, server), client(address) as (_reader, writer):
        writer.transport.pause_reading()
        writer.write((GET % b"/metrics") * 2000)
        async with within():
            await server.wait_empty()
        assert made < 100, "answers were made although nobody took them"


async def test_client_that_reads_late_gets_every_answer():
    async with (
        serving(metrics=lambda: [b"x" * 300_000]) as (address, _),
        client(address) as (reader, writer),
    ):
        writer.transport.pause_reading()
        writer.write((GET % b"/metrics") * 40)
        writer.write((GET % b"/healthz") * 400)
        for _ in range(100):
            await asyncio.sleep(0)
        writer.transport.resume_reading()
        for _ in range(40):
            status, _, body = await response(reader)
            assert (status, len(body)) == (200, 300_000)
        for _ in range(400):
            assert (await response(reader))[0] == 200


async def test_half_closed_client_is_told_of_its_mistake():
    def metrics():
        while not half_closed:
            yield b"x"
        raise RuntimeError("broken source")

    half_closed = False
    async with serving(metrics=metrics) as (address, _), client(address) as (reader, writer):
        writer.write(GET % b"/metrics")
        writer.write_eof()
        for _ in range(100):
            await asyncio.sleep(0)
        half_closed = True
        assert (await response(reader))[0] == 500
        assert await ended(reader)


async def test_connection_above_the_cap_is_told_so():
    async with serving(Limits(connections=2)) as (address, server):
        async with client(address) as first, client(address) as second:
            for reader, writer in (first, second):
                writer.write(GET % b"/healthz")
                assert (await response(reader))[0] == 200
            async with client(address) as (third, _):
                assert (await response(third))[0] == 503
                assert await ended(third)
        async with within():
            await server.wait_empty()
        async with client(address) as (reader, writer):
            writer.write(GET % b"/healthz")
            assert (await response(reader))[0] == 200


async def test_close_lets_an_answer_finish_and_ends_idle_connections():
    async with serving() as (address, _):
        pass  # an unused listener closes too
    begun = asyncio.Event()
    may_end = False

    def metrics():
        begun.set()
        while not may_end:
            yield b"x"

    async with (
        serving(metrics=metrics) as (address, server),
        client(address) as (busy, busy_writer),
        client(address) as (idle, idle_writer),
    ):
        idle_writer.write(GET % b"/healthz")
        assert (await response(idle))[0] == 200
        busy_writer.write(GET % b"/metrics")
        async with within():
            await begun.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.close())
            assert await ended(idle)
            may_end = True
            status, headers, _ = await response(busy)
            assert (status, headers["connection"]) == (200, "close")
            busy_writer.close()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection(*address)


async def test_close_does_not_wait_for_an_endless_answer():
    begun = asyncio.Event()

    def metrics():
        begun.set()
        while True:
            yield b""

    async with serving(metrics=metrics) as (address, server), client(address) as (reader, writer):
        writer.write(GET % b"/metrics")
        async with within():
            await begun.wait()
            await server.close(grace_s=0)
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await reader.readexactly(1)


async def test_cancelled_close_ends_the_connections():
    begun = asyncio.Event()

    def metrics():
        begun.set()
        while True:
            yield b""

    async with serving(metrics=metrics) as (address, server), client(address) as (_reader, writer):
        writer.write(GET % b"/metrics")
        async with within():
            await begun.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await server.close(grace_s=60)
        async with within():
            await server.wait_empty()


async def test_taken_port_is_an_error():
    async with serving() as (address, _):
        with pytest.raises(OSError, match="in use"):
            await HttpServer(Endpoints(lambda: Readiness(True), list)).start(*address)


@pytest.mark.slow
def test_listener_works_the_same_on_uvloop():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_half_closed_client_still_gets_its_answers(b"/metrics"))
        runner.run(test_pipelined_requests_are_answered_in_order())
        runner.run(test_request_that_cannot_be_understood_ends_the_connection(b"a" * 100_000, 431))
        runner.run(test_client_that_reads_late_gets_every_answer())
        runner.run(test_half_closed_client_is_told_of_its_mistake())
        runner.run(test_connection_above_the_cap_is_told_so())
        runner.run(test_client_that_does_not_read_is_cut_off())
        runner.run(test_close_lets_an_answer_finish_and_ends_idle_connections())

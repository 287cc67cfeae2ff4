from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from gateway.telemetry import logs
from gateway.telemetry.trace import SampledContext


class FakeClock:
    def __init__(self):
        self.time_ns = 0

    def now_ns(self):
        return self.time_ns


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def restored_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def stream():
    return io.StringIO()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_line_is_one_json_object_with_the_bound_fields(stream):
    logs.configure(stream=stream)
    log = logs.bind(
        "gateway.test", model="digits", version="3", revision=17, context=SampledContext(0xABC, 1)
    )
    log.info("loaded %s", "well", seconds=1.5)
    [line] = lines(stream)
    assert list(line)[:4] == ["time", "level", "event", "logger"]
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "event": "loaded well",
        "logger": "gateway.test",
        "model": "digits",
        "version": "3",
        "revision": 17,
        "trace_id": f"{0xABC:032x}",
        "seconds": 1.5,
    }


def test_fields_that_were_not_given_are_left_out(stream):
    logs.configure(stream=stream)
    logs.bind("gateway.test", model="digits").info("hello")
    assert lines(stream)[0].keys() == {"time", "level", "event", "logger", "model"}


def test_standard_logging_takes_the_same_way(stream):
    logs.configure(stream=stream)
    logging.getLogger("library").error("lost %d of %d", 1, 2, extra={"error_id": "e9", "secret": "no"})
    [line] = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("lost 1 of 2", "error", "library")
    assert line["error_id"] == "e9"
    assert "secret" not in line


@pytest.mark.parametrize("through", ["structlog", "logging"])
def test_exception_stays_on_the_line(stream, through):
    logs.configure(stream=stream)
    try:
        raise ValueError("broken\npipe")
    except ValueError:
        if through == "structlog":
            logs.bind("gateway.test").exception("failed")
        else:
            logging.getLogger("library").exception("failed")
    [line] = lines(stream)
    assert "ValueError: broken\npipe" in line["exception"]


def test_value_that_is_not_json_is_written_as_its_repr(stream):
    logs.configure(stream=stream)
    logs.bind("gateway.test").info("odd", value={1, 2}, text="\ud800\u2028")
    [line] = lines(stream)
    assert line["value"] == "{1, 2}"
    assert stream.getvalue().isascii()


@pytest.mark.parametrize(
    ("level", "written"),
    [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")],
)
def test_level_decides_what_is_written(stream, level, written):
    logs.configure(level, stream=stream)
    log = logs.bind("gateway.test")
    log.debug("d")
    logging.getLogger("library").info("i")
    log.warning("w")
    log.error("e")
    assert "".join(line["event"] for line in lines(stream)) == written


def test_level_may_change_later(stream):
    logs.configure("error", stream=stream)
    log = logs.bind("gateway.test")
    log.info("before")
    logs.set_level("info")
    log.info("after")
    assert [line["event"] for line in lines(stream)] == ["after"]


def test_unknown_level_is_refused():
    with pytest.raises(ValueError, match="debug, info, warning, error"):
        logs.configure("loud")


@pytest.mark.parametrize("pretty", [None, True])
def test_terminal_gets_lines_for_people(pretty):
    stream = Terminal() if pretty is None else io.StringIO()
    logs.configure(stream=stream, pretty=pretty)
    logs.bind("gateway.test", model="digits").info("hello")
    text = stream.getvalue()
    assert "hello" in text
    assert "digits" in text
    assert not text.startswith("{")
    assert ("\x1b[" in text) is (pretty is None)


def test_terminal_can_be_told_to_take_json():
    stream = Terminal()
    logs.configure(stream=stream, pretty=False)
    logs.bind("gateway.test").info("hello")
    assert lines(stream)[0]["event"] == "hello"


@pytest.mark.parametrize("through", ["structlog", "logging"])
def test_equal_warnings_are_limited_and_counted(stream, through):
    clock = FakeClock()
    logs.configure(stream=stream, clock=clock)

    def warn(n):
        if through == "structlog":
            logs.bind("gateway.test", model="digits").warning("queue full", depth=n)
        else:
            logging.getLogger("library").warning("queue %s", "full")

    for n in range(20):
        warn(n)
    assert len(lines(stream)) == 5
    clock.time_ns += 10_000_000_000
    warn(20)
    assert lines(stream)[-1]["suppressed"] == 15


def test_different_warnings_and_all_errors_pass(stream):
    logs.configure(stream=stream, clock=FakeClock())
    for n in range(20):
        logs.bind("gateway.test", model=f"m{n}").warning("queue full")
        logs.bind("gateway.test").error("bug", error_id=str(n))
    assert len(lines(stream)) == 40


def test_wrong_arguments_of_a_warning_do_not_reach_its_caller(stream, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    logs.configure(stream=stream)
    logging.getLogger("library").warning("%d and %d", 1)
    logging.getLogger("library").warning("next")
    assert [line["event"] for line in lines(stream)] == ["next"]

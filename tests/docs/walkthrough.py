"""A page that a reader follows command by command: its blocks, run in one shell, and what they print."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_STEP = re.compile(r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
_BEHIND_S = 15.0  # how long what runs in the background may take to print what the page shows
_COUNT = re.compile(r"(version \d+): (\d+) of (\d+)")
_COUNT_TOLERANCE = 0.15  # of all: over four standard deviations of two hundred tosses of a coin

# What differs from run to run, and what it counts as. The page says so to its reader.
_VARIABLE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(\+00:00|Z)"), "TIME"),
    (re.compile(r"(?<![\w.])\d+(\.\d+)? ?(us|ms|s|m|h)\b( \d+ ?(s|m|h)\b)*"), "DURATION"),
    (re.compile(r"\b(revision|pid) \d+(?:, \d+ in force)?"), r"\1 N"),
    (re.compile(r"^((?:policies/|access/)?[a-z]+) +\d+(?=  )"), r"\1 N"),  # of `get`
    (re.compile(r"^(g\d+) +\d+ "), r"\1 N "),  # of `history`
    (re.compile(r"\b[0-9a-f]{8}\b"), "ID"),
    (re.compile(r"\d+(\.\d+)? [KM]iB"), "SIZE"),
)
# What comes or not, as the machine is quick or slow: progress, and the shell's word on ended jobs.
_PASSING = re.compile(r"waiting: |\S+: line \d+: +\d+ (Terminated|Killed) ")


@dataclass(frozen=True, slots=True)
class Step:
    """`shown` is what the page says is printed, '' where it shows nothing."""

    line: int
    command: str
    shown: str

    @property
    def may_fail(self) -> bool:
        return "error: " in self.shown or "crossgate diff" in self.command


def steps_of(page: str) -> list[Step]:
    """Every `sh` block, with the `text` block right behind it."""
    return [
        Step(page.count("\n", 0, found.start()) + 1, found[1], found[2] or "")
        for found in _STEP.finditer(page)
    ]


def agrees(shown: str, printed: str) -> bool:
    """Whether `printed` is what the page shows. `...` stands for any text, on a line of its own for any
    lines; what `_VARIABLE` names counts as equal, and a count of requests within 15 % of all.
    """
    return _lines_agree(_settled(shown), _settled(printed))


def _settled(text: str) -> list[str]:
    return [line for line in map(_plain, text.splitlines()) if line and not _PASSING.match(line)]


def _plain(line: str) -> str:
    for pattern, name in _VARIABLE:
        line = pattern.sub(name, line)
    return " ".join(line.split())


def _lines_agree(shown: list[str], printed: list[str]) -> bool:
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(_lines_agree(shown[1:], printed[skip:]) for skip in range(len(printed) + 1))
    return bool(printed) and _line_agrees(shown[0], printed[0]) and _lines_agree(shown[1:], printed[1:])


def _line_agrees(shown: str, printed: str) -> bool:
    ours, theirs = _COUNT.fullmatch(shown), _COUNT.fullmatch(printed)
    if ours and theirs:
        total = int(ours[3])
        apart = abs(int(ours[2]) - int(theirs[2]))
        all_the_same = int(ours[2]) == total
        return ours[1] == theirs[1] and apart <= (0 if all_the_same else total * _COUNT_TOLERANCE)
    pattern = ".*".join(map(re.escape, shown.split("...")))
    return re.fullmatch(pattern, printed) is not None


class Shell:
    """One bash, which reads commands as a reader types them. Its end is that of all it has started."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._output, writer = os.pipe()
        os.set_blocking(self._output, False)
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=writer,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # by which its processes are known
        )
        os.close(writer)
        self._steps = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_all()
        os.close(self._output)
        assert self._bash.stdin is not None, "it is a pipe"
        self._bash.stdin.close()

    def run(self, command: str, timeout_s: float, is_all: Callable[[str], bool]) -> tuple[str, int]:
        """Return what is printed, and the command's exit status. What runs in the background has a few
        seconds more, until `is_all` says that nothing is missing.

        Raises:
            TimeoutError: the command did not end.
        """
        self._steps += 1
        script = self._folder / f".step-{self._steps}"
        script.write_text(command)
        assert self._bash.stdin is not None, "it is a pipe"
        end = f"--- end of step {self._steps}: "
        self._bash.stdin.write(f". {script} </dev/null; echo '{end}'$?\n".encode())
        self._bash.stdin.flush()
        pattern = re.compile(rf"{end}(\d+)\n")
        printed = self._read_until(lambda text: pattern.search(text) is not None, timeout_s)
        found = pattern.search(printed)
        if found is None:
            raise TimeoutError(f"it has not ended after {timeout_s:.0f} s, and printed:\n{printed}")
        printed = printed[: found.start()] + printed[found.end() :]
        if not is_all(printed):
            before = printed
            printed += self._read_until(lambda text: is_all(before + text), _BEHIND_S)
        return printed, int(found[1])

    def _read_until(self, is_enough: Callable[[str], bool], timeout_s: float) -> str:
        read, ends_at_s = b"", time.monotonic() + timeout_s
        while not is_enough(read.decode("utf-8", "replace")):
            left_s = ends_at_s - time.monotonic()
            if left_s <= 0:
                break
            if select.select([self._output], [], [], left_s)[0]:
                block = os.read(self._output, 1 << 16)
                if not block:
                    break  # the shell and all that it has started have ended
                read += block
        return read.decode("utf-8", "replace")

    def _end_all(self) -> None:
        """A worker lives for two seconds longer than its gateway; it is of the same session."""
        for number, patience_s in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
            ends_at_s = time.monotonic() + patience_s
            for process in self._processes():
                os.kill(process, number)
            while self._processes() and time.monotonic() < ends_at_s:
                self._bash.poll()
                time.sleep(0.05)
        self._bash.wait()

    def _processes(self) -> list[int]:
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = status.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == self._bash.pid and fields[0] != "Z":
                found.append(int(status.parent.name))
        return found

"""What counts as the output that a page shows, and that nothing which a page starts is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from walkthrough import Shell, agrees, steps_of

PAGE = """\
Text.

```sh
echo one
```

```text
one
```

```sh
true
```

Text between.

```text
of no command
```
"""


def test_a_block_of_output_belongs_to_the_command_right_before_it():
    first, second = steps_of(PAGE)
    assert (first.line, first.command, first.shown) == (3, "echo one\n", "one\n")
    assert (second.command, second.shown) == ("true\n", "")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("digits: generation 3, revision 10 (by ann)", "digits: generation 3, revision 1234 (by ann)"),
        ("one on ...: serving, up 9s", "one on vm: serving, up 2m 45s"),
        ("g4  13  2026-11-23T20:10:26+00:00  ann", "g4   9   2027-01-02T03:04:05+00:00  ann"),
        ("its source is away for 2s", "its source is away for 836 ms"),
        ("version 1: 100 of 200", "version 1: 88 of 200"),
        ("first\n...\nlast", "first\n\nsecond\nthird\nlast"),
        ("first\n...\nlast", "first\nlast"),
        ("applied", "waiting: one: it is loading\napplied"),
        ("gone", "/walk/.step-4: line 2: 30897 Killed                  etcd\ngone"),
    ],
)
def test_what_differs_from_run_to_run_is_no_difference(shown, printed):
    assert agrees(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("digits: generation 3, revision 10 (by ann)", "digits: generation 4, revision 10 (by ann)"),
        ("digits: generation 3, revision 10 (by ann)", "digits: generation 3, revision 10 (by bob)"),
        ("version 1: 100 of 200", "version 1: 180 of 200"),
        ("version 1: 200 of 200", "version 1: 199 of 200"),
        ("version 1: 100 of 200", "version 2: 100 of 200"),
        ("plan: version 1 90 % -> 50 %", "plan: version 1 90 % -> 60 %"),
        ("first\nlast", "first\nsecond\nlast"),
        ("first", ""),
        ("", "error: something"),
        ("first\n...\nlast", "first\nsecond"),
        ("error: no store", "error: no key"),
    ],
)
def test_every_other_difference_counts(shown, printed):
    assert not agrees(shown, printed)


@pytest.fixture
def shell(tmp_path):
    with Shell(tmp_path, {"PATH": os.environ["PATH"]}) as shell:
        yield shell


def test_commands_share_one_shell(shell, tmp_path):
    shell.run("mkdir there && cd there && name=value", 10, lambda _: True)
    printed, status = shell.run("pwd; echo $name >&2; false", 10, lambda _: True)
    assert printed == f"{tmp_path}/there\nvalue\n"
    assert status == 1


def test_what_the_background_prints_later_is_waited_for(shell):
    shell.run("mkfifo gate; (read line < gate; echo $line) &", 10, lambda _: True)
    printed, _ = shell.run("(echo late > gate) &", 10, lambda text: "late" in text)
    assert printed == "late\n"


def test_a_command_that_does_not_end_is_an_error(shell):
    with pytest.raises(TimeoutError, match="begun"):
        shell.run("echo begun; sleep 60", 0.2, lambda _: True)


def is_running(process):
    """A process that has ended stays until somebody waits for it."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_what_was_started_ends_with_the_shell(tmp_path):
    with Shell(tmp_path, {"PATH": os.environ["PATH"]}) as shell:
        printed, _ = shell.run("sleep 60 & echo $!", 10, lambda _: True)
        assert is_running(int(printed))
    assert not is_running(int(printed))

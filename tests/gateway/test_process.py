from __future__ import annotations

import os

import pytest

from gateway.process import Process


@pytest.fixture
def own():
    process = Process(os.getpid())
    yield process
    process.close()


def test_a_process_is_found_by_its_note(own):
    found = Process.find(f"{own.note}\n")
    assert found is not None
    assert (found.pid, found.ended) == (own.pid, False)
    found.close()


@pytest.mark.parametrize(
    "note", ["", " ", "12", "x y", "-1 5", "0 0", f"{os.getpid()}", f"{os.getpid()} 1", f"{2**70} 1"]
)
def test_a_note_of_nobody_who_runs_finds_none(note):
    assert Process.find(note) is None


async def test_waiting_for_what_goes_on_ends_with_the_time(own):
    assert not await own.wait(0.001)
    assert (own.status, own.how_it_ended) == (None, "has ended")


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exited with status 0"), (3, "exited with status 3"), (-9, "was killed by SIGKILL")],
)
def test_how_it_ended_is_said_in_words(own, status, words):
    own.status = status
    assert own.how_it_ended == words

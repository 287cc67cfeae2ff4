from __future__ import annotations

import logging

import pytest

from gateway.admin.levels import LevelInvalid, Levels


class Later:
    """Timers that tests let go off."""

    def __init__(self):
        self.due = []

    def __call__(self, seconds, call):
        timer = [seconds, call]
        self.due.append(timer)
        outer = self

        class Handle:
            def cancel(self):
                outer.due.remove(timer)

        return Handle()

    def pass_by(self):
        for timer in list(self.due):
            self.due.remove(timer)
            timer[1]()


@pytest.fixture
def later():
    return Later()


@pytest.fixture
def levels(later):
    root, named = logging.getLogger(), logging.getLogger("gateway.test_levels")
    before = root.level
    yield Levels(later)
    root.setLevel(before)
    named.setLevel(logging.NOTSET)


def level(name="gateway.test_levels"):
    return logging.getLogger(name).level


def test_a_level_set_for_good_stays(levels, later):
    assert levels.set("debug", "gateway.test_levels") == ("debug", "inherit", 0.0)
    assert level() == logging.DEBUG
    assert not later.due


def test_the_level_of_all_loggers_is_the_roots(levels):
    logging.getLogger().setLevel(logging.INFO)
    assert levels.set("error").previous == "info"
    assert logging.getLogger().level == logging.ERROR


def test_a_level_set_for_a_while_goes_back(levels, later):
    levels.set("error", "gateway.test_levels")
    assert levels.set("debug", "gateway.test_levels", 60.0).reverts_s == 60.0
    later.pass_by()
    assert level() == logging.ERROR


def test_set_twice_for_a_while_it_goes_back_to_what_was_first(levels, later):
    levels.set("error", "gateway.test_levels")
    levels.set("debug", "gateway.test_levels", 60.0)
    levels.set("info", "gateway.test_levels", 30.0)
    assert [seconds for seconds, _ in later.due] == [30.0]
    later.pass_by()
    assert level() == logging.ERROR


def test_a_level_set_for_good_ends_one_set_for_a_while(levels, later):
    levels.set("debug", "gateway.test_levels", 60.0)
    levels.set("warning", "gateway.test_levels")
    later.pass_by()
    assert level() == logging.WARNING


def test_a_logger_can_inherit_again(levels):
    levels.set("debug", "gateway.test_levels")
    levels.set("inherit", "gateway.test_levels")
    assert level() == logging.NOTSET


def test_closing_sets_back_what_was_set_for_a_while(levels, later):
    levels.set("debug", "gateway.test_levels", 60.0)
    levels.close()
    assert level() == logging.NOTSET
    assert not later.due


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("loud",), "unknown log level 'loud'; known are debug, info, warning, error"),
        (("inherit",), "unknown log level 'inherit'"),
        (("info", "gateway.test_levles"), 'did you mean "gateway.test_levels"'),
        (("info", "", 0.0), "more than 0 and at most 604800 seconds"),
        (("info", "", float("inf")), "more than 0 and at most 604800 seconds"),
        (("info", "", float("nan")), "more than 0 and at most 604800 seconds"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(levels, later, arguments, words):
    before = logging.getLogger().level
    with pytest.raises(LevelInvalid, match=words):
        levels.set(*arguments)
    assert logging.getLogger().level == before
    assert not later.due
    assert "gateway.test_levles" not in logging.getLogger().manager.loggerDict

"""Which front end serves."""

from __future__ import annotations

from types import ModuleType

import pytest

from gateway.extension import Extension
from gateway.frontend.choice import FrontendUnavailable, choose_frontend, find_frontends

MODULE = ModuleType("gateway._native")
RELEASE = Extension(MODULE, "", "release")
DEBUG = Extension(MODULE, "", "debug")
MISSING = Extension(None, "cargo was not found", "")


@pytest.mark.parametrize(
    ("wanted", "native", "inherits", "choice"),
    [
        ("auto", RELEASE, False, ("native", "")),
        ("auto", RELEASE, True, ("native", "")),
        ("auto", DEBUG, False, ("grpcio", "it is a debug build")),
        ("auto", MISSING, False, ("grpcio", "cargo was not found")),
        ("native", RELEASE, False, ("native", "")),
        ("native", DEBUG, True, ("native", "")),
        ("grpcio", RELEASE, False, ("grpcio", "")),
        ("grpcio", MISSING, False, ("grpcio", "")),
    ],
)
def test_choice(wanted, native, inherits, choice):
    assert choose_frontend(wanted, native, inherits=inherits) == choice


@pytest.mark.parametrize(
    ("wanted", "native", "inherits", "word"),
    [
        ("native", MISSING, False, "cargo was not found"),
        ("auto", MISSING, True, "cargo was not found"),
        ("auto", DEBUG, True, "debug"),
        ("grpcio", RELEASE, True, "only the native front end"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(wanted, native, inherits, word):
    with pytest.raises(FrontendUnavailable, match=word):
        choose_frontend(wanted, native, inherits=inherits)


def test_grpcio_is_always_there_and_native_says_why_or_how():
    native, grpcio = find_frontends()
    assert (native.name, grpcio.name, grpcio.usable) == ("native", "grpcio", True)
    assert native.detail

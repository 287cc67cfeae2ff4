"""Which front end serves: the native one, or the one in Python."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

from gateway.extension import Extension, find_extension
from gateway.frontend.grpcio import GrpcioFrontend

if TYPE_CHECKING:
    import asyncio

    from gateway.clock import Clock
    from gateway.frontend.listening import Listening
    from gateway.frontend.seam import Frontend, Servicers


class FrontendUnavailable(Exception):
    """The front end that was asked for is not there; the message says why."""


class Choice(NamedTuple):
    """`name` is native or grpcio; `reason` says why `auto` passes over the native one."""

    name: str
    reason: str


class FrontendFinding(NamedTuple):
    """`detail` says how it was built, or why it is not there and what to do."""

    name: str
    usable: bool
    detail: str


def find_frontends() -> list[FrontendFinding]:
    """Return which front ends may serve here."""
    native = find_native()
    if native.module is None:
        detail = (
            f"{native.reason}; to build it, install Crossgate again with cargo (in a checkout: make native)"
        )
    else:
        detail = f"{native.profile} build"
        if native.profile != "release":
            detail += ": serves with --frontend native only"
    return [
        FrontendFinding("native", native.module is not None, detail),
        FrontendFinding("grpcio", True, "the front end in Python"),
    ]


def find_native() -> Extension:
    """Return the extension if the front end of these sources can run on it, and why not otherwise."""
    extension = find_extension()
    if extension.module is not None:
        try:
            importlib.import_module("gateway.frontend.native")
        except ImportError as error:
            return Extension(None, f"it does not fit these sources, install Crossgate again: {error}", "")
    return extension


def choose_frontend(wanted: str, native: Extension, *, inherits: bool) -> Choice:
    """`auto` takes the native front end where it is there and a release build; it alone `inherits` listening
    sockets.

    Raises:
        FrontendUnavailable
    """
    if wanted == "native" and native.module is None:
        raise FrontendUnavailable(f"the native front end is not there: {native.reason}")
    reason = ""
    if wanted == "auto" and native.module is None:
        reason = native.reason
    elif wanted == "auto" and native.profile != "release":
        reason = f"it is a {native.profile} build"
    if wanted == "grpcio" or reason:
        if inherits:
            raise FrontendUnavailable(f"only the native front end takes over listening sockets. {reason}")
        return Choice("grpcio", reason)
    return Choice("native", "")


def build_frontend(
    name: str, loop: asyncio.AbstractEventLoop, clock: Clock, servicers: Servicers, listening: Listening
) -> Frontend:
    """`name` is that of a `Choice`. The native module is imported only where it serves."""
    if name == "native":
        from gateway.frontend.native import NativeFrontend

        return NativeFrontend(loop, clock, servicers, listening)
    return GrpcioFrontend(loop, clock, servicers, listening)

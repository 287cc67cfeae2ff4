"""Which load generator measures, and which one checks it."""

from __future__ import annotations

import shutil

from bench.h2load import H2load
from bench.load import LoadFailed, LoadGenerator
from bench.native_load import NativeLoad, is_available
from crossgate.cli.load import LoadUnavailable, check_load_available

CHOICES = ("auto", "native", "h2load", "both")
H2LOAD_PACKAGE = "nghttp2-client"  # Debian's


def choose(wanted: str) -> tuple[LoadGenerator, ...]:
    """The generator whose figures count, and for `both` the one that is run beside it. `auto` takes the
    native one where it is there. Raises LoadFailed."""
    if wanted == "auto":
        wanted = "native" if is_available() else "h2load"
    found: list[LoadGenerator] = []
    if wanted in ("native", "both"):
        try:
            check_load_available()
        except LoadUnavailable as error:
            raise LoadFailed(str(error)) from error
        found.append(NativeLoad())
    if wanted in ("h2load", "both"):
        if shutil.which("h2load") is None:
            raise LoadFailed(f"h2load is missing (Debian: {H2LOAD_PACKAGE})")
        found.append(H2load())
    return tuple(found)

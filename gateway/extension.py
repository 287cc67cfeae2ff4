"""The native extension `gateway._native`: whether it is there, and why not.

It is compiled when Crossgate is installed, by native/cargo_build.py, which leaves a record beside it.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import ModuleType

_FOLDER = Path(__file__).parent
_RECORD = "_native_build.json"


class Extension(NamedTuple):
    """`module` is None where there is none, and `reason` says why; else `profile` is how it was compiled."""

    module: ModuleType | None
    reason: str
    profile: str


def find_extension(folder: Path = _FOLDER, name: str = "gateway._native") -> Extension:
    """Import the extension. Never raises: what stands in the way is the reason."""
    try:
        module = importlib.import_module(name)
        return Extension(module, "", module.build_profile())
    except ModuleNotFoundError:
        return Extension(None, _why_missing(folder), "")
    except Exception as error:  # an extension of another version or machine may fail in any way
        return Extension(None, f"it cannot be loaded: {error}", "")


def _why_missing(folder: Path) -> str:
    record = folder / _RECORD
    try:
        found = json.loads(record.read_text())
        return str(found["reason"] or f"it was built, but is no longer in {folder}")
    except FileNotFoundError:
        return f"{folder} has neither the extension nor a record of its build: was it installed?"
    except (OSError, ValueError, LookupError, TypeError) as error:
        return f"the record of its build, {record}, cannot be read: {error}"

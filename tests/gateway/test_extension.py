"""Whether the native extension is there, and why not."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from gateway.extension import find_extension

MISSING = "gateway._no_such_extension"


def test_extension_that_is_there_says_how_it_was_built(monkeypatch, tmp_path):
    module = ModuleType("gateway._fake")
    module.build_profile = lambda: "release"
    monkeypatch.setitem(sys.modules, "gateway._fake", module)
    assert find_extension(tmp_path, "gateway._fake") == (module, "", "release")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ('{"built": false, "reason": "cargo was not found"}', "cargo was not found"),
        ('{"built": true, "reason": ""}', "no longer in"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read"),
        (None, "was it installed?"),
    ],
)
def test_reason_for_a_missing_extension_is_in_its_record(tmp_path, record, reason):
    if record is not None:
        (tmp_path / "_native_build.json").write_text(record)
    extension = find_extension(tmp_path, MISSING)
    assert extension.module is None
    assert reason in extension.reason


def test_extension_that_cannot_be_loaded_is_a_reason_too(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "crossgate_broken.py").write_text("raise ImportError('undefined symbol: x')")
    extension = find_extension(tmp_path, "crossgate_broken")
    assert extension.reason == "it cannot be loaded: undefined symbol: x"


def test_extension_of_another_version_is_a_reason_too(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gateway._fake", ModuleType("gateway._fake"))
    assert "build_profile" in find_extension(tmp_path, "gateway._fake").reason

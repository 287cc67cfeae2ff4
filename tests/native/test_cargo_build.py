"""The build of the extension: what stands in its way is recorded, and nothing hangs."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
CRATE = '[package]\nname = "tiny"\nversion = "0.1.0"\nrust-version = "1.82"\n[features]\npython = []\n'
IS_CARGO = '[ "$1" = --version ] && echo cargo 1.90.0 && exit'
LOCK = 'version = 4\n[[package]]\nname = "tiny"\nversion = "0.1.0"\n'

needs_cargo = pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not there")


@pytest.fixture(scope="module")
def cargo_build():
    spec = importlib.util.spec_from_file_location("cargo_build", NATIVE / "cargo_build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["cargo_build"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["cargo_build"]


@pytest.fixture
def folder(tmp_path):
    """Where the extension goes; an older one is there."""
    folder = tmp_path / "gateway"
    folder.mkdir()
    (folder / "_native.abi3.so").write_bytes(b"older")
    return folder


@pytest.fixture
def crate(tmp_path):
    crate = tmp_path / "crate"
    (crate / "src").mkdir(parents=True)
    (crate / "Cargo.toml").write_text(CRATE)
    (crate / "Cargo.lock").write_text(LOCK)
    (crate / "src" / "lib.rs").write_text("")
    return crate


@pytest.fixture
def fake_cargo(tmp_path):
    """Return an environment in which cargo is this script."""

    def environment(script):
        cargo = tmp_path / "bin" / "cargo"
        cargo.parent.mkdir()
        cargo.write_text(f"#!/bin/sh\n{script}\n")
        cargo.chmod(0o755)
        return {"PATH": f"{cargo.parent}:/usr/bin:/bin"}

    return environment


def environment_with_cargo(tmp_path, **more):
    return {**os.environ, "CARGO_TARGET_DIR": str(tmp_path / "target"), **more}


def not_built(cargo_build, folder, environment, **options):
    """Return the reason; the record must say the same, and no extension may be there."""
    record = cargo_build.build(folder, environment, **options)
    assert (record.built, record.profile) == (False, "")
    assert json.loads((folder / "_native_build.json").read_text())["reason"] == record.reason
    assert [path.name for path in folder.iterdir()] == ["_native_build.json"]
    return record.reason


def test_missing_cargo_is_the_reason(cargo_build, folder):
    assert not_built(cargo_build, folder, {"PATH": str(folder)}) == (
        "cargo was not found when Crossgate was installed"
    )


def test_build_that_is_not_wanted_does_not_begin(cargo_build, folder, fake_cargo):
    environment = {**fake_cargo("touch $0.called"), "CROSSGATE_NATIVE": "0"}
    assert "CROSSGATE_NATIVE=0" in not_built(cargo_build, folder, environment)
    assert not list((folder.parent / "bin").glob("*.called"))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo cargo 1.65.0", r"cargo 1.65.0 is too old, 1.82 or newer is needed"),
        ("echo 'no default toolchain' >&2; exit 1", "cargo failed: no default toolchain"),
        ("echo hello", "cargo gave no version: 'hello'"),
        (f"{IS_CARGO}; echo '  Compiling' >&2; echo 'error: E1' >&2; echo ' at x' >&2; exit 101",
         "cargo failed: error: E1; at x"),
        (f"{IS_CARGO}; exit 0", "cargo made no library"),
    ],
    ids=["too old", "no toolchain", "no cargo", "compile error", "no output"],
)  # fmt: skip
def test_what_cargo_says_is_the_reason(cargo_build, folder, fake_cargo, crate, script, reason):
    assert not_built(cargo_build, folder, fake_cargo(script), crate=crate).startswith(reason)


def test_long_words_are_cut_in_the_middle(cargo_build, folder, fake_cargo, crate):
    script = "echo error: first >&2; seq 1000 >&2; echo why >&2; exit 1"
    reason = not_built(cargo_build, folder, fake_cargo(script), crate=crate)
    assert reason.startswith("cargo failed: error: first; 1; 2;")
    assert reason.endswith("1000; why")
    assert len(reason) < 650


@pytest.mark.slow
def test_build_that_takes_too_long_is_ended_with_all_its_processes(cargo_build, folder, fake_cargo, crate):
    script = f"{IS_CARGO}; echo Downloading >&2; sleep 60 & wait"
    started = time.monotonic()
    reason = not_built(cargo_build, folder, fake_cargo(script), crate=crate, limit_s=0.3)
    assert reason == "cargo was ended after 0.3 s; its last words: Downloading"
    assert time.monotonic() - started < 10  # the grandchild held standard error open


@pytest.mark.slow
@needs_cargo
def test_compile_error_is_the_reason(cargo_build, folder, crate, tmp_path):
    (crate / "src" / "lib.rs").write_text("fn broken() -> u32 { missing }")
    reason = not_built(cargo_build, folder, environment_with_cargo(tmp_path), crate=crate)
    assert "cannot find value `missing`" in reason


@pytest.mark.slow
@needs_cargo
def test_library_that_is_no_extension_is_not_installed(cargo_build, folder, crate, tmp_path):
    (crate / "Cargo.toml").write_text(f'{CRATE}[lib]\ncrate-type = ["cdylib"]\n')
    reason = not_built(cargo_build, folder, environment_with_cargo(tmp_path), crate=crate)
    assert reason.startswith("it was compiled, but cannot be loaded: ImportError:")


@pytest.mark.slow
@needs_cargo
def test_lock_file_that_does_not_fit_is_not_changed(cargo_build, folder, crate, tmp_path):
    (crate / "Cargo.lock").write_text('version = 4\n[[package]]\nname = "other"\nversion = "0.1.0"\n')
    reason = not_built(cargo_build, folder, environment_with_cargo(tmp_path), crate=crate)
    assert "--locked" in reason
    assert "other" in (crate / "Cargo.lock").read_text()


def with_registry(tmp_path, port):
    """Return an environment in which nothing was ever downloaded, and the registry is at this port."""
    home = tmp_path / "cargo"
    home.mkdir()
    (home / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "dead"\n'
        f'[source.dead]\nregistry = "sparse+http://127.0.0.1:{port}/"\n'
    )
    return environment_with_cargo(tmp_path, CARGO_HOME=str(home))


@pytest.mark.slow
@needs_cargo
def test_registry_that_refuses_connections_is_the_reason(cargo_build, folder, tmp_path):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        reason = not_built(cargo_build, folder, with_registry(tmp_path, bound.getsockname()[1]))
    assert reason.startswith("cargo failed: error: failed to")
    assert "onnect to" in reason


@pytest.mark.long
@needs_cargo
def test_registry_that_does_not_answer_holds_an_installation_up_for_less_than_a_minute(
    cargo_build, folder, tmp_path
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        reason = not_built(cargo_build, folder, with_registry(tmp_path, silent.getsockname()[1]))
    assert time.monotonic() - started < 60
    assert "too slow" in reason or "imed out" in reason or "imeout" in reason


@pytest.mark.parametrize(
    ("built", "profile", "required", "refused"),
    [
        (True, "release", "1", False),
        (True, "debug", "1", True),
        (False, "", "1", True),
        (True, "debug", "0", False),
        (False, "", "", False),
    ],
)
def test_only_a_release_build_passes_where_it_is_required(cargo_build, built, profile, required, refused):
    record = cargo_build.Record(built, profile, "" if built else "no cargo", "", "")
    answer = cargo_build.refusal(record, {"CROSSGATE_REQUIRE_NATIVE": required})
    assert bool(answer) == refused
    assert (profile or "no cargo") in cargo_build.outcome(record)


def test_replacing_the_extension_leaves_the_file_of_running_gateways_alone(cargo_build, folder, tmp_path):
    library = tmp_path / "lib_native.so"
    library.write_bytes(b"newer")
    with (folder / "_native.abi3.so").open("rb") as mapped:
        cargo_build._replace(library, folder / "_native.abi3.so")
        assert mapped.read() == b"older"
    assert (folder / "_native.abi3.so").read_bytes() == b"newer"

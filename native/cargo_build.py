"""Builds the extension `gateway._native` with cargo, and records what came of it.

Without cargo, or where it fails, nothing fails here: the gateway then serves with its front end in Python. An
installer shows nothing of that, so the reason is kept in a record beside the place of the extension.

`python native/cargo_build.py FOLDER` and setup.py run this, the latter before anything is installed: it needs
the standard library alone. CROSSGATE_NATIVE=0 builds nothing; CROSSGATE_REQUIRE_NATIVE=1 makes everything but
a release build an error.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CRATE = Path(__file__).resolve().parent
EXTENSION = "_native.abi3.so"
RECORD = "_native_build.json"

LIMIT_S = 1200.0  # of the whole build; it takes about a minute on two cores
_QUESTION_LIMIT_S = 60.0  # `cargo --version` of rustup may go and fetch a toolchain
_REASON_CHARACTERS = 600
# cargo's own patience with a registry that does not answer is minutes. The extension uses the stable ABI, so
# its build need not look for an interpreter, nor start again when another one asks for it.
_DEFAULTS = {"CARGO_NET_RETRY": "1", "CARGO_HTTP_TIMEOUT": "10", "PYO3_NO_PYTHON": "1"}

_PROFILE = """
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
loader = ExtensionFileLoader("_native", sys.argv[1])
module = module_from_spec(spec_from_loader("_native", loader))
loader.exec_module(module)
print(module.build_profile())
"""


@dataclass(frozen=True)
class Record:
    """`profile` is the extension's own word, such as `release`; `reason` says why there is none. `cargo` is
    its version, empty where it is not known; `when` is UTC.
    """

    built: bool
    profile: str
    reason: str
    cargo: str
    when: str


class NotBuilt(Exception):
    """There is no extension; the message says why."""


def build(
    folder: Path, environment: Mapping[str, str], *, crate: Path = CRATE, limit_s: float = LIMIT_S
) -> Record:
    """Put the extension and its record into `folder`. Where it cannot be built, an older one is removed."""
    extension = folder / EXTENSION
    environment = {**_DEFAULTS, **environment}
    cargo = profile = reason = ""
    try:
        if environment.get("CROSSGATE_NATIVE") == "0":
            raise NotBuilt("CROSSGATE_NATIVE=0 was set when Crossgate was installed")
        if sys.platform != "linux":
            raise NotBuilt(f"it is for Linux only, and this is {sys.platform}")
        program, cargo = _find_cargo(crate, environment)
        library = _compile(program, crate, environment, limit_s)
        profile = _profile_of(library)
        _replace(library, extension)
    except NotBuilt as error:
        reason = str(error)
        extension.unlink(missing_ok=True)
    record = Record(not reason, profile, reason, cargo, datetime.now(UTC).isoformat(timespec="seconds"))
    (folder / RECORD).write_text(json.dumps(asdict(record), indent=1) + "\n")
    return record


def refusal(record: Record, environment: Mapping[str, str]) -> str:
    """Return why this record must not pass, empty where it may."""
    if environment.get("CROSSGATE_REQUIRE_NATIVE") != "1" or record.profile == "release":
        return ""
    return f"CROSSGATE_REQUIRE_NATIVE=1, but {outcome(record)}"


def outcome(record: Record) -> str:
    """Return a record in words."""
    if record.built:
        return f"the native extension is a {record.profile} build"
    return f"the native extension was not built: {record.reason}"


def _find_cargo(crate: Path, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return cargo's path and its version."""
    program = shutil.which(environment.get("CARGO", "cargo"), path=environment.get("PATH"))
    if program is None:
        raise NotBuilt("cargo was not found when Crossgate was installed")
    answer = _run([program, "--version"], crate, environment, _QUESTION_LIMIT_S)
    match = re.match(r"cargo (\d+)\.(\d+)\S*", answer)
    if match is None:
        raise NotBuilt(f"cargo gave no version: {answer.strip()!r}")
    needed = tomllib.loads((crate / "Cargo.toml").read_text())["package"]["rust-version"]
    if tuple(map(int, match.groups())) < tuple(map(int, needed.split("."))):
        raise NotBuilt(f"{match[0]} is too old, {needed} or newer is needed")
    return program, match[0].removeprefix("cargo ")


def _compile(program: str, crate: Path, environment: Mapping[str, str], limit_s: float) -> Path:
    """Return the library that cargo made; quick where nothing has changed."""
    command = [program, "build", "--release", "--locked", "--features", "python", "--lib"]
    command += ["--message-format", "json-render-diagnostics"]
    for line in _run(command, crate, environment, limit_s).splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and "cdylib" in message["target"]["crate_types"]:
            libraries = [name for name in message["filenames"] if name.endswith(".so")]
            if libraries:
                return Path(libraries[0])
    raise NotBuilt("cargo made no library")


def _profile_of(library: Path) -> str:
    """Return what the extension says of its build: it is good only if this very interpreter can load it."""
    command = [sys.executable, "-I", "-c", _PROFILE, str(library)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        said = _shortened(answer.stderr.splitlines()[-1:])
        raise NotBuilt(f"it was compiled, but cannot be loaded: {said}")
    return answer.stdout.strip()


def _replace(library: Path, extension: Path) -> None:
    """A gateway that runs has the old file mapped: a new one takes its name, its content never changes."""
    fresh = extension.with_suffix(".new")
    shutil.copyfile(library, fresh)
    fresh.chmod(0o755)
    fresh.replace(extension)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str], limit_s: float) -> str:
    """Return standard output. The command is ended with all that it has started, whatever ends the wait.

    Raises:
        NotBuilt
    """
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, text=True, errors="replace", start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise NotBuilt(f"{command[0]} cannot be run: {error.strerror}") from error
    with process:
        try:
            output, errors = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            _end(process)
            said = _words(process.communicate()[1])
            raise NotBuilt(f"cargo was ended after {limit_s:g} s; its last words: {said}") from error
        except BaseException:
            _end(process)
            raise
    if process.returncode != 0:
        print(errors, file=sys.stderr)
        raise NotBuilt(f"cargo failed: {_words(errors)}")
    return output


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _words(errors: str) -> str:
    """Return the heart of what cargo or the compiler said: the first error and what follows."""
    lines = [" ".join(line.split()) for line in errors.splitlines()]
    lines = [line for line in lines if line not in ("", "Caused by:")]
    first = next((i for i, line in enumerate(lines) if re.match(r"error\b", line)), max(len(lines) - 5, 0))
    return _shortened(lines[first:])


def _shortened(lines: Sequence[str]) -> str:
    """Cut the middle out: the beginning says what, and the end of a chain of causes says why."""
    text = "; ".join(lines) or "nothing"
    half = _REASON_CHARACTERS // 2
    return text if len(text) <= _REASON_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


def main() -> None:
    """Build into the folder that the command line names."""
    (folder,) = sys.argv[1:]
    record = build(Path(folder), os.environ)
    print(outcome(record))
    refused = refusal(record, os.environ)
    if refused:
        sys.exit(f"error: {refused}")


if __name__ == "__main__":
    main()

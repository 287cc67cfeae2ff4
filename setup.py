"""What pyproject.toml cannot say: the build of the native extension, by native/cargo_build.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Command, Distribution, setup
from setuptools.command.build import build
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "native"))

import cargo_build  # noqa: E402  # its folder is no package


class build_native(Command):
    """Build the extension into the package: into the source tree where the installation is editable."""

    description = "build the native extension with cargo, where that is possible"
    user_options: list[tuple[str, str | None, str]] = []  # noqa: RUF012  # the interface of Command
    editable_mode = False
    build_lib = ""

    def initialize_options(self) -> None:
        self.build_lib = ""

    def finalize_options(self) -> None:
        if not self.build_lib:
            self.build_lib = self.get_finalized_command("build").build_lib

    def run(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        record = cargo_build.build(self._folder, os.environ)
        self.announce(cargo_build.outcome(record), level=2)
        refused = cargo_build.refusal(record, os.environ)
        if refused:
            raise CompileError(refused)

    def get_outputs(self) -> list[str]:
        files = (self._folder / name for name in (cargo_build.EXTENSION, cargo_build.RECORD))
        return [str(file) for file in files if file.exists()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}  # nothing is copied from the sources

    def get_source_files(self) -> list[str]:
        """What a source distribution needs to build it."""
        crate = ROOT / "native"
        files = [crate / name for name in ("Cargo.toml", "Cargo.lock", "cargo_build.py")]
        return [str(file.relative_to(ROOT)) for file in (*files, *sorted((crate / "src").rglob("*.rs")))]

    @property
    def _folder(self) -> Path:
        return (ROOT if self.editable_mode else Path(self.build_lib)) / "gateway"


class PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


build.sub_commands = [*build.sub_commands, ("build_native", None)]
setup(
    distclass=PlatformDistribution,
    cmdclass={"build_native": build_native},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)

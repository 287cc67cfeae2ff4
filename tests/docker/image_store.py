"""Builds targets of docker/Dockerfile with buildah, without a daemon, on a base that debootstrap makes.

The base stands for `python:3.11-slim-bookworm`: Debian of the same release, with its own Python 3.11. All
else is the Dockerfile as it stands.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from container import Image

ROOT = Path(__file__).parents[2]
BASE = "localhost/crossgate-test-base"
_LIMIT_S = 1800.0
_PACKAGES = "python3,python3-venv,ca-certificates"
# How the builder reaches the package indexes is this machine's matter, and stays out of the image.
_FROM_THE_HOST = ("/etc/ssl/certs", "/etc/pip.conf")
_ARCHIVE = Path("/etc/apt/sources.list.d/debian.sources")


def require_tools() -> None:
    """Skips, with the reason, where images cannot be built."""
    if os.geteuid() != 0:
        pytest.skip("images are built here without a container engine, which needs root")
    for program in ("buildah", "debootstrap", "unshare", "nsenter", "setpriv"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install buildah crun debootstrap util-linux")


@dataclass(frozen=True)
class ImageStore:
    """Images below `folder`, apart from those of the machine. `log` gets what the builds print."""

    folder: Path
    log: Path

    def make_base(self) -> None:
        """Take about a minute, and the network."""
        root = self.folder / "base"
        self._run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(root)])
        if _ARCHIVE.exists():  # with the updates, as the official image has them
            shutil.copy(_ARCHIVE, root / "etc/apt/sources.list.d")
            (root / "etc/apt/sources.list").write_text("")
        container = self._buildah("from", "scratch")
        mounted = self._buildah("mount", container)
        self._run(["cp", "--archive", f"{root}/.", f"{mounted}/"])
        self._buildah("umount", container)
        self._buildah("commit", "--quiet", "--format=docker", container, BASE)
        self._buildah("rm", container)

    def build(self, target: str) -> Image:
        """Return the image, with its root mounted until `close`."""
        shared = [f"--volume={path}:{path}:ro" for path in _FROM_THE_HOST if Path(path).exists()]
        name = f"localhost/crossgate-test-{target}"
        self._buildah(
            "build", "--isolation=chroot", "--format=docker", "--layers", *shared, f"--target={target}",
            f"--build-arg=PYTHON_IMAGE={BASE}", f"--tag={name}", "--file=docker/Dockerfile", ".",
        )  # fmt: skip
        container = self._buildah("from", "--pull-never", name)
        inspected = self._buildah("inspect", "--type=image", name)
        return Image.of(Path(self._buildah("mount", container)), inspected)

    def close(self) -> None:
        """Take all of it away."""
        for command in (["umount", "--all"], ["rm", "--all"], ["rmi", "--all", "--force"]):
            subprocess.run([*self._program(), *command], capture_output=True, check=False, timeout=_LIMIT_S)

    def _program(self) -> list[str]:
        return ["buildah", f"--root={self.folder / 'images'}", f"--runroot={self.folder / 'run'}"]

    def _buildah(self, *arguments: str) -> str:
        return self._run([*self._program(), *arguments])

    def _run(self, command: list[str]) -> str:
        with self.log.open("ab") as log:
            found = subprocess.run(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                timeout=_LIMIT_S, check=False,
            )  # fmt: skip
            log.write(found.stdout)
        assert found.returncode == 0, f"{command[:4]}: {self.log.read_text(errors='replace')[-3000:]}"
        return found.stdout.decode().strip()

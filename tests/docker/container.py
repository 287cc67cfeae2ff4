"""Runs an image's root as a container engine would, without one: by namespaces, as root.

As in compose.yaml the program is of the image's user, without capabilities that it could regain, its root is
read-only, /tmp is in memory, and the volumes are what is given. It is process 1 of its own process namespace.
The network is the host's. Signals come from outside, like an engine's.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STOP_LIMIT_S = 40.0


@dataclass(frozen=True)
class Image:
    """A root and what its configuration says of how to run it."""

    root: Path
    user: str
    environment: dict[str, str]  # {name: value}
    command: tuple[str, ...]
    health: tuple[str, ...]
    stop_signal: str
    folder: str
    labels: dict[str, str]  # {name: value}

    @classmethod
    def of(cls, root: Path, inspected: str) -> Self:
        """`inspected` is what `buildah inspect --type image` prints."""
        config = json.loads(inspected)["Docker"]["config"]
        variables = (each.partition("=") for each in config["Env"])
        return cls(
            root,
            config["User"],
            {name: value for name, _, value in variables},
            (*config["Entrypoint"], *config["Cmd"]),
            tuple(config["Healthcheck"]["Test"][1:]),
            config["StopSignal"],
            config["WorkingDir"],
            config["Labels"],
        )

    def size_bytes(self) -> int:
        """As `du` counts."""
        found = subprocess.run(
            ["du", "-s", "-B1", "-x", str(self.root)], capture_output=True, text=True, check=True
        )
        return int(found.stdout.split()[0])

    def programs(self) -> set[str]:
        """Names of all files that can be run, wherever they lie."""
        found = subprocess.run(
            ["find", str(self.root), "-xdev", "(", "-type", "f", "-o", "-type", "l", ")", "-perm", "/111",
             "-printf", "%f\\n"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return set(found.stdout.splitlines())


class Container:
    """A running image. `volumes` are {folder of the host: (folder in the image, may be written)}. Leaving the
    context ends it, by force if it must be. `log` gets what it prints.
    """

    def __init__(
        self,
        image: Image,
        log: Path,
        *,
        environment: Mapping[str, str],
        volumes: Mapping[Path, tuple[str, bool]],
    ) -> None:
        self._image = image
        self._environment = {**image.environment, **environment}
        self._log = log
        self._volumes = volumes

    def __enter__(self) -> Self:
        with self._log.open("wb") as output:
            self._unshare = subprocess.Popen(
                # With process 1 all others of its namespace end.
                ["unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child",
                 "sh", "-ec", self._script()],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={"PATH": os.environ["PATH"]},
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        # `--kill-child` alone leaves it: the kernel forgets that signal when a process changes its user.
        children = self._children()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        if not children and not self.ended:
            self._unshare.kill()
        self._unshare.wait(STOP_LIMIT_S)

    @property
    def pid(self) -> int:
        """Process 1, as the host counts it. Raises LookupError where there is none."""
        children = self._children()
        if not children:
            raise LookupError(f"process 1 is not there: {self.log_text()}")
        return int(children[0])

    @property
    def ended(self) -> bool:
        return self._unshare.poll() is not None

    def log_text(self) -> str:
        return self._log.read_text(errors="replace")

    def status(self) -> dict[str, str]:
        """Return what /proc says of process 1. {field: text}"""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}

    def run(self, command: Sequence[str], timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as `exec` of an engine does."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--ipc", "--pid", "--root", "--wd"]
        return subprocess.run(
            [*inside, *self._as_user(), *command],
            capture_output=True, text=True, timeout=timeout_s, env=self._environment, check=False,
        )  # fmt: skip

    def healthy(self) -> bool:
        """What the image's health check says; false while process 1 is not there yet."""
        if self.ended or not self._children():
            return False
        return self.run(self._image.health).returncode == 0

    def stop(self) -> int:
        """Send the image's stop signal and return the exit status."""
        os.kill(self.pid, signal.Signals[self._image.stop_signal])
        return self._unshare.wait(STOP_LIMIT_S)

    def _children(self) -> list[str]:
        if self.ended:
            return []
        return Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()

    def _as_user(self) -> list[str]:
        user, _, group = self._image.user.partition(":")
        return [
            "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--bounding-set=-all",
            "--inh-caps=-all", "--no-new-privs",
        ]  # fmt: skip

    def _script(self) -> str:
        root = shlex.quote(str(self._image.root))
        lines = [
            f"mount --make-rprivate / && mount --rbind {root} {root} && cd {root}",
            "mount -t proc proc proc && mount -t sysfs -o ro sysfs sys && mount --rbind /dev dev",
            "mount -t tmpfs -o mode=1777 tmpfs tmp",
        ]
        for folder, (place, writable) in self._volumes.items():
            lines.append(f"mount --bind {shlex.quote(str(folder))} .{place}")
            if not writable:
                lines.append(f"mount -o remount,bind,ro .{place}")
        lines.append("mount -o remount,bind,ro . && cd .")
        variables = [f"{name}={value}" for name, value in self._environment.items()]
        enter = ["chroot", ".", "env", "-i", f"--chdir={self._image.folder}", *variables]
        lines.append("exec " + shlex.join([*enter, *self._as_user(), *self._image.command]))
        return "\n".join(lines)

"""Virtual environments of the peers: they pin versions that cannot live in one environment with ours."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PEERS = Path(__file__).parent / ".peers"
MODEL_CACHE = PEERS / "models"


class NotInstalled(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not installed: run `python -m bench setup` first")


@dataclass(frozen=True)
class Environment:
    """`requirements` are installed beside the ONNX Runtime release that this process has."""

    name: str
    requirements: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return PEERS / self.name

    @property
    def python(self) -> Path:
        """Raises NotInstalled."""
        path = self.folder / "bin" / "python"
        if not (self.folder / "installed").exists():
            raise NotInstalled(self.name)
        return path

    def install(self) -> None:
        """Raises CalledProcessError. Does nothing if this very list is installed already."""
        wanted = json.dumps([*self.requirements, f"onnxruntime=={version('onnxruntime')}"])
        stamp = self.folder / "installed"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        stamp.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(self.folder)], check=True)
        pip = [str(self.folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *json.loads(wanted)], check=True)
        stamp.write_text(wanted)

    def package_folder(self, package: str) -> Path:
        code = f"import importlib.util as u; print(u.find_spec({package!r}).submodule_search_locations[0])"
        return Path(self._ask(code))

    def library_folder(self) -> str:
        """Where the shared library of this environment's Python lies."""
        return self._ask("import sysconfig; print(sysconfig.get_config_var('LIBDIR'))")

    def python_minor(self) -> str:
        return self._ask("import sys; print('%d.%d' % sys.version_info[:2])")

    def versions(self, *packages: str) -> dict[str, str]:
        code = (
            "import importlib.metadata as m, json; "
            f"print(json.dumps({{p: m.version(p) for p in {packages!r}}}))"
        )
        found: dict[str, str] = json.loads(self._ask(code))
        return found

    def _ask(self, code: str) -> str:
        answer = subprocess.run([str(self.python), "-c", code], check=True, capture_output=True, text=True)
        return answer.stdout.strip()

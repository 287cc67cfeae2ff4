"""Regenerate the stubs: `python -m protos.generate`; with `--check`, fail when the committed ones are out of
date.
"""

from __future__ import annotations

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("model_config.proto", "inference.proto", "admin.proto", "pool_link.proto")


def generate(target: Path) -> dict[str, str]:
    """Return {file name: content} of all stubs, generated in the folder `target`."""
    from grpc_tools import protoc

    includes = [f"-I{HERE.parent}", f"-I{files('grpc_tools') / '_proto'}"]
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    sources = [f"protos/{name}" for name in SOURCES]
    if protoc.main(["protoc", *includes, *outputs, *sources]) != 0:
        raise SystemExit("protoc failed")
    return {
        path.name: _in_private_pool(path) for path in sorted((target / "protos").iterdir()) if _wanted(path)
    }


def _wanted(path: Path) -> bool:
    return not (path.name.endswith("_grpc.py") and "Stub" not in path.read_text())


def _in_private_pool(path: Path) -> str:
    text = path.read_text()
    if path.name.endswith("_pb2.py"):
        text, count = re.subn(r"_descriptor_pool\.Default\(\)", "_private_pool.POOL", text)
        text = text.replace(
            "from google.protobuf import descriptor_pool as _descriptor_pool\n",
            "from protos import pool as _private_pool\n",
        )
        if count != 1:
            raise SystemExit(f"{path.name}: expected one use of the default descriptor pool, found {count}")
    return text


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        stubs = generate(Path(folder))
    if "--check" in sys.argv:
        stale = [n for n, text in stubs.items() if not (HERE / n).is_file() or (HERE / n).read_text() != text]
        if stale:
            raise SystemExit(f"out of date, run `python -m protos.generate`: {', '.join(stale)}")
        return
    for name, text in stubs.items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()

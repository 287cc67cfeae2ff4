"""A directory of models, written as an operator would: a version appears as a whole, a document is
replaced.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

CPU_LOOPBACK = {"runtime": "loopback", "device": "cpu", "threads": 1}
FAST = {"warm_up": {"runs": 0}}


class ModelDirectory:
    def __init__(self, root: Path) -> None:
        self.root = root

    def write_version(self, model: str, version: str, file: bytes | None = None) -> None:
        """Write a version beside its place and move it there; `file` is its model.onnx."""
        self.write_files(model, version, {} if file is None else {"model.onnx": file})

    def write_files(self, model: str, version: str, files: dict[str, bytes]) -> None:
        draft = self.root / model / f".{version}.draft"
        draft.mkdir(parents=True)
        for name, content in files.items():
            (draft / name).write_bytes(content)
        os.rename(draft, self.root / model / version)

    def write_document(self, model: str, document: dict[str, Any] | str) -> None:
        """Replace model.yaml at once."""
        folder = self.root / model
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / ".model.yaml.draft"
        draft.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        os.rename(draft, folder / "model.yaml")

    def write_loopback(
        self,
        model: str,
        *,
        versions: tuple[str, ...] = ("1",),
        options: dict[str, Any] | None = None,
        instance: dict[str, Any] | None = None,
        **document: Any,
    ) -> None:
        """Write a model that answers INPUT0, FP32 [batch, width], as OUTPUT0."""
        instance = {**CPU_LOOPBACK, "options": options or {}, **(instance or {})}
        for version in versions:
            if not (self.root / model / version).exists():
                self.write_version(model, version)
        self.write_document(model, {"instances": [instance], **FAST, **document})

    def remove_version(self, model: str, version: str) -> None:
        """Move a version out of the way, then delete it."""
        gone = self.root / model / f".{version}.removed"
        os.rename(self.root / model / version, gone)
        shutil.rmtree(gone)

    def remove_model(self, model: str) -> None:
        gone = self.root / f".{model}.removed"
        os.rename(self.root / model, gone)
        shutil.rmtree(gone)

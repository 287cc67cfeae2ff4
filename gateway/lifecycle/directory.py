"""A directory as the source of desired state: `DIR/<model>/<version>/model.onnx` (or .xml), optional
`DIR/<model>/model.yaml`, or Triton's `config.pbtxt` as the door for those who migrate.

A version folder counts once nothing in it has changed for `SETTLE_S`, so that a copy in progress is never
loaded. A broken document leaves the last good one in force. Reads are small and synchronous.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from typing import TYPE_CHECKING

from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.files import find_model_file, read_model_file, read_text
from gateway.config.validation import validate
from gateway.lifecycle.desired import Desired, DesiredModel, DesiredVersion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.config.document import ModelDocument

log = logging.getLogger(__name__)

SETTLE_S = 1.0
_RESCAN_S = 10.0
_MODEL_FILES = ("model.onnx", "model.xml")


class DirectoryUnreadable(Exception):
    """The models directory is not there or not a directory."""


class DirectorySource:
    """`scan` reads everything; `changes` yields a snapshot at the start and whenever it differs."""

    def __init__(self, root: Path, *, now: Callable[[], float] = time.time) -> None:
        if not root.is_dir():
            raise DirectoryUnreadable(f"{root} is not a directory")
        self._root = root
        self._now = now
        self._models: dict[str, DesiredModel] = {}
        self._warned: dict[str, tuple[str, ...]] = {}  # {model: ignored fields already logged}
        self._revision = 0
        self._last = Desired()
        self._settling: set[str] = set()
        self._unreadable = ""  # why the directory cannot be read
        self.from_disk = False  # it is the disk

    @property
    def where(self) -> str:
        return str(self._root)

    @property
    def away(self) -> str:
        return self._unreadable

    @property
    def unsettled(self) -> bool:
        """Whether the last scan found a version that is still being written."""
        return bool(self._settling)

    async def changes(self) -> AsyncIterator[Desired]:
        """Yield snapshots for ever: the first at once, then one for each change."""
        from watchfiles import awatch  # a thread of its own, started with the watch

        last = self.scan()
        yield last
        stop = asyncio.Event()
        watch = awatch(
            self._root,
            stop_event=stop,
            yield_on_timeout=True,
            rust_timeout=int(_RESCAN_S * 1000),
            debounce=200,
            step=50,
        )
        # always one step ahead of the scan, so that no change falls in between
        changed = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        try:
            while True:
                desired = self.scan()
                if desired != last:
                    last = desired
                    yield desired
                if self.unsettled:
                    await asyncio.sleep(SETTLE_S / 4)
                else:
                    await changed
                    changed = asyncio.ensure_future(anext(watch))
        finally:
            stop.set()
            changed.cancel()
            await asyncio.gather(changed, return_exceptions=True)

    def scan(self) -> Desired:
        """Read the directory once."""
        self._settling = set()
        models: dict[str, DesiredModel] = {}
        problems: dict[str, str] = {}
        changed = False
        try:
            folders = sorted(self._root.iterdir())
        except OSError as error:  # a mount that is away for a moment must not unload every model
            log.error("the models directory cannot be read, what is served stays: %s", error)
            self._unreadable = str(error)
            return self._last
        self._unreadable = ""
        for folder in folders:
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            try:
                model = self._read_model(folder)
            except (DocumentInvalid, OSError) as error:
                said = str(error)
                problems[folder.name] = f"cannot be read: {said}" if isinstance(error, OSError) else said
                if folder.name in self._models:
                    models[folder.name] = self._models[folder.name]
                continue
            before = self._models.get(folder.name)
            if before is not None and (before.document, before.versions) == (model.document, model.versions):
                models[folder.name] = before
            else:
                models[folder.name] = model
                changed = True
        if changed or models.keys() != self._models.keys():
            self._revision += 1
            models = {
                name: model
                if model is self._models.get(name)
                else DesiredModel(model.document, model.versions, self._revision)
                for name, model in models.items()
            }
        self._models = models
        self._last = Desired(models, problems, frozenset(self._settling), revision=self._revision)
        return self._last

    def _read_model(self, folder: Path) -> DesiredModel:
        folders = [
            f for f in folder.iterdir() if f.is_dir() and f.name.isdecimal() and str(int(f.name)) == f.name
        ]
        document, file_name = self._read_document(folder, {f.name for f in folders})
        versions = {}
        for version in folders:
            found = self._read_version(version, document, file_name)
            if found is not None:
                versions[version.name] = found
        return DesiredModel(document, versions, 0)

    def _read_document(self, folder: Path, versions: set[str]) -> tuple[ModelDocument, str]:
        """Return a model's document and the file name that it gives, '' for the usual ones.

        Raises:
            DocumentInvalid: everything that is wrong with it.
        """
        model_file, config = find_model_file(folder), folder / "config.pbtxt"
        if model_file is not None:
            document = validate(read_model_file(model_file), model=folder.name, versions=versions)
            if document.versions:
                what = "expected none in a directory: its numbered folders are the versions"
                raise DocumentInvalid([Problem("versions", what)])
            return document, ""
        if not config.is_file():
            return validate({}, model=folder.name, versions=versions), ""
        from gateway.config.triton import read_config_pbtxt

        runtime = (
            "openvino"
            if any(folder.glob("*/*.xml"))
            else "onnxruntime"
            if any(folder.glob("*/*.onnx"))
            else None
        )
        triton = read_config_pbtxt(read_text(config), runtime=runtime)
        if triton.refused:
            raise DocumentInvalid(triton.refused)
        ignored = tuple(str(problem) for problem in triton.ignored)
        if ignored and self._warned.get(folder.name) != ignored:
            self._warned[folder.name] = ignored
            log.warning("model %s: config.pbtxt: not honoured: %s", folder.name, "; ".join(ignored))
        return validate(triton.data, model=folder.name, versions=versions), triton.model_filename or ""

    def _read_version(self, folder: Path, document: ModelDocument, file_name: str) -> DesiredVersion | None:
        """Return a version's file, None while it is missing or being written."""
        newest, digest, files = 0.0, hashlib.sha256(), []
        for path in sorted(folder.rglob("*")):
            try:
                status = path.stat()
            except FileNotFoundError:  # an editor's or a copier's file, gone since it was listed
                continue
            newest = max(newest, status.st_ctime)
            digest.update(f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
            if path.parent == folder and path.is_file():
                files.append(path.name)
        loopback = bool(document.instances) and all(i.runtime == "loopback" for i in document.instances)
        if not files and not loopback:
            return None
        if self._now() - max(newest, folder.stat().st_ctime) < SETTLE_S:
            self._settling.add(folder.parent.name)
            known = self._models.get(folder.parent.name)
            return known.versions.get(folder.name) if known else None
        name = _model_file(files, file_name)
        path_text = os.path.join(folder, name) if name else str(folder)
        return DesiredVersion(folder.name, path_text, digest.hexdigest()[:16])


def _model_file(files: list[str], wanted: str) -> str:
    """Return which file of a version is the model: the one asked for, a usual one, the only one of its kind,
    or ''.
    """
    for name in (wanted, *_MODEL_FILES):
        if name and name in files:
            return name
    candidates = [name for name in files if name.endswith((".onnx", ".xml"))]
    return candidates[0] if len(candidates) == 1 and not wanted else wanted or ""

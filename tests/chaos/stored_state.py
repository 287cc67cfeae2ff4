"""What etcd holds, read from etcd itself, and what gateways are to make of it: worked out here by other code
than the gateway's, so that a fault in that is no excuse for itself.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etcd_process import EtcdProcess

PREFIX = "crossgate"
FIELDS = {"model", "schema", "versions", "labels", "traffic", "instances", "batching", "warm_up"}


@dataclass(frozen=True)
class Held:
    value: bytes
    revision: int
    lease: int


@dataclass(frozen=True)
class Routing:
    """`split` is {version: percent}, rounded."""

    labels: Mapping[str, str]
    split: Mapping[str, float]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Routing:
        labels = document.get("labels", {})
        weights: dict[str, float] = {}
        for target, weight in document["traffic"]["split"].items():
            if weight:
                version = labels.get(target, target)
                weights[version] = weights.get(version, 0) + weight
        total = sum(weights.values())
        return cls(dict(labels), {version: round(100 * w / total, 6) for version, w in weights.items()})


@dataclass(frozen=True)
class Expected:
    """`document` is the effective one, None where what is stored is not valid. Its revision is not lower than
    `revision`: the end of an override, which leaves nothing behind, raises it too.
    """

    model: str
    document: Mapping[str, Any] | None
    revision: int


@dataclass(frozen=True)
class StoredState:
    revision: int
    entries: Mapping[str, Held]

    @classmethod
    def read(cls, etcd: EtcdProcess) -> StoredState:
        """Blocks."""
        start, end = f"/{PREFIX}/".encode(), f"/{PREFIX}0".encode()
        reply = etcd.post("kv/range", {"key": _base64(start), "range_end": _base64(end)})
        entries = {}
        for kv in reply.get("kvs", ()):
            key = base64.b64decode(kv["key"]).removeprefix(start).decode()
            value = base64.b64decode(kv.get("value", ""))
            entries[key] = Held(value, int(kv["mod_revision"]), int(kv.get("lease", 0)))
        return cls(int(reply["header"]["revision"]), entries)

    def folder(self, name: str) -> dict[str, Held]:
        """{the rest of the key: entry}"""
        start = f"{name}/"
        return {key.removeprefix(start): held for key, held in self.entries.items() if key.startswith(start)}

    def expected(self) -> dict[str, Expected]:
        """{model: what is to be in force}"""
        return {model: self._of(model, held) for model, held in self.folder("models").items()}

    def _of(self, model: str, held: Held) -> Expected:
        document = _parsed(held.value)
        overrides = sorted(self.folder(f"overrides/{model}").values(), key=lambda each: each.revision)
        for override in overrides:
            document = _merged(document, json.loads(override.value)["patch"])
        revision = max(held.revision, *(override.revision for override in overrides), 0)
        return Expected(model, document if is_valid(document) else None, revision)


def put_raw(etcd: EtcdProcess, key: str, value: bytes) -> int:
    """Write as somebody does who knows nothing of the ledger; return the revision. Blocks."""
    request = {"key": _base64(f"/{PREFIX}/{key}".encode()), "value": _base64(value)}
    return int(etcd.post("kv/put", request)["header"]["revision"])


def is_valid(document: object) -> bool:
    """Enough to tell the wrong documents that these tests write from the right ones."""
    if not isinstance(document, dict) or not document.keys() <= FIELDS:
        return False
    versions, labels = document.get("versions", {}), document.get("labels", {})
    targets = document.get("traffic", {}).get("split", {})
    return (
        bool(versions)
        and all(version in versions for version in labels.values())
        and all(target in versions or target in labels for target in targets)
    )


def _parsed(value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return None


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

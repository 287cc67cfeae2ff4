"""A store's keys below its prefix in etcd, and etcd's entries as the store's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.config.store.store import Entry

if TYPE_CHECKING:
    from gateway.config.store.store import Span


@dataclass(frozen=True, slots=True)
class KeySpace:
    """Keys that are no UTF-8, which others may write below our prefix, survive the way there and back."""

    prefix: str  # "/crossgate/"

    def encode(self, key: str) -> bytes:
        return (self.prefix + key).encode(errors="surrogateescape")

    def decode(self, key: bytes) -> str:
        return key.decode(errors="surrogateescape").removeprefix(self.prefix)

    def entry(self, kv: Any) -> Entry:
        """Of an `mvccpb.KeyValue`."""
        return Entry(self.decode(kv.key), kv.value, kv.mod_revision, kv.lease)

    def shown(self, span: Span) -> str:
        """The keys of a span as messages name them."""
        return f"{self.prefix}{span.start} to {self.prefix}{span.end}"

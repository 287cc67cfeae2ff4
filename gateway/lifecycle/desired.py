"""Desired state as every source gives it: one snapshot of all models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.config.gateway_document import GatewayDocument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.document import ModelDocument, VersionSource


@dataclass(frozen=True, slots=True)
class DesiredVersion:
    """A version's file on this machine, or the `source` that it is to be fetched from: then `path` is empty
    until it has been. `fingerprint` changes with the content, as far as that is known without reading it.
    """

    version: str
    path: str
    fingerprint: str
    source: str = ""
    digest: str | None = None


class Sources(Mapping[str, DesiredVersion]):
    """The versions that a document names, {version: where it is fetched from}: made when they are asked for,
    since of thousands of declared models few ever are.
    """

    __slots__ = ("_sources",)

    def __init__(self, sources: Mapping[str, VersionSource]) -> None:
        self._sources = sources

    def __getitem__(self, version: str) -> DesiredVersion:
        source = self._sources[version]
        return DesiredVersion(version, "", source.digest or "", source.source, source.digest)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


@dataclass(frozen=True, slots=True)
class DesiredModel:
    """One model. `revision` is where its effective document or its versions last changed."""

    document: ModelDocument
    versions: Mapping[str, DesiredVersion]  # {version: file}, only complete ones
    revision: int


@dataclass(frozen=True, slots=True)
class Desired:
    """A whole snapshot. `problems` names models whose document is wrong: the last good one stays in force.
    `changed` are the models that differ from the snapshot before; None where that is not known.
    """

    models: Mapping[str, DesiredModel] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)  # {model: what is wrong with it}
    settling: frozenset[str] = frozenset()  # models with a version that is still being written
    changed: frozenset[str] | None = None
    gateway: GatewayDocument = field(default_factory=GatewayDocument)
    gateway_problem: str = ""  # what is wrong with the gateway's document
    revision: int = 0

"""Why a change of documents may not be made, found before anything is written."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.config.difference import canonical, same
from gateway.config.document import ModelDocument, VersionSource
from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.kinds import validate_document
from gateway.config.standing import effective
from gateway.config.validation import refused_changes
from gateway.config.wording import listed, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.config.gateway_document import GatewayDocument
    from gateway.config.kinds import DocumentName
    from gateway.config.standing import InForce, Standing

# Three times as much, the document, its history and one found before it, fits into one commit.
MAX_DOCUMENT_BYTES: Final = 448 << 10
MAX_OVERRIDES: Final = 20  # in force over one model
_RETIRED_KEPT: Final = 1000  # versions with a digest that a history remembers after they are gone


@dataclass(frozen=True, slots=True)
class Refusal:
    """All that is wrong with the change of one document."""

    name: DocumentName
    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        return "\n".join(f"{self.name}: {problem}" for problem in self.problems)


class ChangeRefused(Exception):
    """Nothing was written. `str(error)` lists every problem on a line of its own."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        super().__init__(refusals)
        self.refusals = tuple(refusals)

    def __str__(self) -> str:
        return "\n".join(map(str, self.refusals))


def problems_of(
    document: Mapping[str, Any] | None, standing: Standing, policy: GatewayDocument | None
) -> tuple[Problem, ...]:
    """What is wrong with making `document` the next of what stands; None deletes it. `policy` is the
    gateway's document, None where freezing does not matter.
    """
    return tuple(_problems(document, standing, policy))


def _problems(
    document: Mapping[str, Any] | None, standing: Standing, policy: GatewayDocument | None
) -> Iterator[Problem]:
    name = standing.name
    yield from _frozen(name, policy)
    if document is None:
        if standing.stored is None:
            yield Problem("", "is not there")
        return
    try:
        valid = validate_document(name, document)
    except DocumentInvalid as error:
        yield from error.problems
        return
    if (size := len(canonical(document))) > MAX_DOCUMENT_BYTES:
        yield Problem("", f"expected at most {MAX_DOCUMENT_BYTES} bytes as JSON, got {size}")
    if isinstance(valid, ModelDocument):
        yield from _changed_digests(standing, valid)
        yield from _broken_overrides(standing, document)


def _changed_digests(standing: Standing, after: ModelDocument) -> Iterator[Problem]:
    known = {**standing.retired, **digests_of(standing.stored.data if standing.stored else None)}
    versions = {version: VersionSource("", digest) for version, digest in known.items()}
    yield from refused_changes(ModelDocument(standing.name.name, versions=versions), after)


def _broken_overrides(standing: Standing, document: Mapping[str, Any]) -> Iterator[Problem]:
    """A document that is valid by itself may not be so with what is in force over it."""
    if not standing.overrides:
        return
    try:
        validate_document(standing.name, effective(dict(document), standing.overrides))
    except DocumentInvalid as error:
        over = ", ".join(f"{each.id} (by {each.override.by})" for each in standing.overrides)
        found = "; ".join(map(str, error.problems))
        yield Problem(
            "",
            f"would not be valid under the overrides in force, {over}: {found}; `crossgate revert` ends them",
        )


def override_problems(standing: Standing, new: InForce, policy: GatewayDocument) -> tuple[Problem, ...]:
    """What is wrong with putting one more override over what stands."""
    name = standing.name
    if standing.stored is None or standing.stored.data is None:
        there = standing.stored.problem if standing.stored is not None else "is not there"
        return (Problem("", there),)
    problems = list(_frozen(name, policy))
    if len(standing.overrides) >= MAX_OVERRIDES:
        problems.append(
            Problem("", f"has {MAX_OVERRIDES} overrides in force, the most; `crossgate revert` ends some")
        )
    document = standing.stored.data
    folded = effective(document, (*standing.overrides, new))
    if same(folded, effective(document, standing.overrides)):
        problems.append(Problem("", "the override would change nothing"))
    try:
        valid = validate_document(name, folded)
    except DocumentInvalid as error:
        return (*problems, *error.problems)
    assert isinstance(valid, ModelDocument), "only models have overrides"
    return (*problems, *_changed_digests(standing, valid))


def ending_problems(
    standing: Standing, ids: Sequence[str], policy: GatewayDocument | None
) -> tuple[Problem, ...]:
    """What is wrong with ending overrides. `policy` is None where freezing does not matter."""
    there = [each.id for each in standing.overrides]
    missing = [
        Problem("", f"has no override {quote(id)} in force; there is {listed(there) or 'none'}")
        for id in ids
        if id not in there
    ]
    if not ids:
        missing.append(Problem("", "has no override in force"))
    return (*_frozen(standing.name, policy), *missing)


def _frozen(name: DocumentName, policy: GatewayDocument | None) -> Iterator[Problem]:
    if policy is None or name.kind != "model":
        return
    pattern, why = policy.frozen_by(name.name), policy.frozen_because(name.name)
    if pattern is not None:
        yield Problem("", f"is frozen{': ' if why else ''}{why}; `{unfreezing(pattern)}` ends that")


def unfreezing(pattern: str) -> str:
    """Return the command that ends a freeze, as a shell takes it."""
    return "crossgate unfreeze" + (f" {shlex.quote(pattern)}" if pattern != "*" else "")


def digests_of(data: Mapping[str, Any] | None) -> dict[str, str]:
    """{version: digest} of plain data, whatever else is wrong with it."""
    versions = (data or {}).get("versions")
    if not isinstance(versions, dict):
        return {}
    return {
        version: source["digest"]
        for version, source in versions.items()
        if isinstance(source, dict) and isinstance(source.get("digest"), str)
    }


def retired_after(standing: Standing, document: Mapping[str, Any] | None) -> dict[str, str]:
    """{version: digest} of versions that were there and are not in `document`: of the highest so many."""
    before = {**standing.retired, **digests_of(standing.stored.data if standing.stored else None)}
    kept = digests_of(document)
    gone = sorted((version for version in before if version not in kept), key=_number)
    return {version: before[version] for version in gone[-_RETIRED_KEPT:]}


def _number(version: str) -> tuple[int, str]:
    return len(version), version

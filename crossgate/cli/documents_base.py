"""What an operator's file was made from: found out before it replaces what others changed meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossgate.cli.documents_session import USAGE, CommandFailed
from gateway.config.change import DocumentChange
from gateway.config.difference import same
from gateway.config.history import in_force_at
from gateway.config.meanwhile import ChangedMeanwhile, Meanwhile
from gateway.config.merge import merge
from gateway.config.stored import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.document_files import FileDocument
    from gateway.config.history import Action, Recorded
    from gateway.config.kinds import DocumentName
    from gateway.config.ledger import Ledger

_FROM_FILES = frozenset({"apply", "sync", "import"})
_SHOWN = 3  # revisions, where one was asked for that is not there
_NOT_OF_THE_DOCUMENT = frozenset({"override", "revert", "expiry"})


@dataclass(frozen=True, slots=True)
class Reconciling:
    """How a file and others' changes go together. `based_on` is a generation, 0 where it is to be found out:
    it is then what the file says it was got from, or what `by` wrote last, or what anybody applied from a
    file last. Changes since then by somebody else, which the file does not have, stop it, unless `merge` puts
    both together or `overwrite` drops theirs.
    """

    by: str
    based_on: int = 0
    merge: bool = False
    overwrite: bool = False


async def reconcile(
    ledger: Ledger,
    documents: Sequence[FileDocument],
    stored: Sequence[Stored | None],
    how: Reconciling,
    action: Action = "apply",
) -> tuple[DocumentChange, ...]:
    """The changes that make the files what the store has; none for a document that it has already.

    Raises ChangedMeanwhile for all documents together, CommandFailed.
    """
    changes: list[DocumentChange] = []
    conflicts: list[Meanwhile] = []
    for document, there in zip(documents, stored, strict=True):
        if there is not None and same(document.data, there.data):
            continue
        history = await ledger.history(document.name)
        found = _reconciled(document, there, history, how, action)
        if isinstance(found, Meanwhile):
            conflicts.append(found)
        elif there is None or not same(found.document, there.data):
            changes.append(found)
    if conflicts:
        raise ChangedMeanwhile(conflicts)
    return tuple(changes)


def _reconciled(
    document: FileDocument,
    there: Stored | None,
    history: Sequence[Recorded],
    how: Reconciling,
    action: Action,
) -> DocumentChange | Meanwhile:
    latest = history[-1].entry.generation if history else 0
    if how.based_on > latest:
        raise CommandFailed(
            f"{document.name} has no generation {how.based_on}; the latest is {latest}", USAGE
        )
    generation = how.based_on or _base_generation(document, history, how.by)
    change = DocumentChange(document.name, document.data, there, action, based_on=generation)
    others = tuple(
        recorded
        for recorded in history
        if recorded.entry.generation > generation
        and recorded.entry.by != how.by
        and recorded.entry.action not in _NOT_OF_THE_DOCUMENT
    )
    if not generation or not others or how.overwrite:
        return change
    base = next((each for each in history if each.entry.generation == generation), None)
    if base is None:
        raise CommandFailed(
            f"{document.where}: generation {generation} of {document.name}, which it is based on, is not "
            f"kept any more; `crossgate diff` shows what is there, --overwrite replaces it",
            USAGE if how.based_on else 1,
        )
    theirs = there.data if there is not None else None
    merged = merge(base.entry.document, document.data, theirs)
    if not merged.overlaps and (same(merged.document, document.data) or how.merge):
        return DocumentChange(document.name, merged.document, there, action, based_on=generation)
    was = Stored(document.name, base.entry.document, base.revision)
    return Meanwhile(document.name, was, document.data, there, others)


def _base_generation(document: FileDocument, history: Sequence[Recorded], by: str) -> int:
    applied = [recorded.entry for recorded in history if recorded.entry.action in _FROM_FILES]
    mine = max((entry.generation for entry in applied if entry.by == by), default=0)
    origin = document.origin if _is_from_here(document, history) else 0
    return max(origin, mine) or max((entry.generation for entry in applied), default=0)


def _is_from_here(document: FileDocument, history: Sequence[Recorded]) -> bool:
    """Whether the generation that a file names is one of this history, perhaps one that is not kept any more,
    and none of another store's.
    """
    if history and document.origin < history[0].entry.generation:
        return document.origin_revision < history[0].revision
    origin = (document.origin, document.origin_revision)
    return any((each.entry.generation, each.revision) == origin for each in history)


def find_generation(text: str, history: Sequence[Recorded]) -> Recorded:
    """The generation that `g12`, or the store's revision `3456`, stands for. Raises CommandFailed."""
    number = text.removeprefix("g")
    if not (number.isascii() and number.isdecimal() and len(number) <= 18):
        raise CommandFailed(
            f"{text!r} is neither a generation such as g12 nor a revision such as 3456", USAGE
        )
    if not history:
        raise CommandFailed("there is no history of it")
    kept = f"kept are g{history[0].entry.generation} to g{history[-1].entry.generation}"
    if text.startswith("g"):
        found = next((each for each in history if each.entry.generation == int(number)), None)
    else:
        found = in_force_at(history, int(number))
        kept += f", from revision {history[0].revision}"
    if found is None:
        raise CommandFailed(f"{text} is not in the history; {kept}")
    return found


def find_written(text: str, history: Sequence[Recorded], name: DocumentName) -> Recorded:
    """As `find_generation`, but a revision has to be one at which this document was written: the number of a
    version must not lead to whatever was in force at the revision of that number. Raises CommandFailed.
    """
    if not (history and text.isascii() and text.isdecimal() and len(text) <= 18):
        return find_generation(text, history)
    exact = next((each for each in reversed(history) if each.revision == int(text)), None)
    if exact is not None:
        return exact
    latest = ", ".join(f"{each.revision} (g{each.entry.generation})" for each in history[: -_SHOWN - 1 : -1])
    then = in_force_at(history, int(text))
    raise CommandFailed(
        f"revision {text} is not in the history of {name}: --to takes a revision of the document, or a "
        f"generation such as g12, and no version of the model. The latest revisions are {latest}"
        + (f"; in force at {text} was g{then.entry.generation}" if then is not None else "")
        + f". `crossgate history {name}` shows all"
    )

"""From a command to a ledger and back: opens the store, and turns what went wrong into a message and an exit
status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import typer

from crossgate.cli.contexts import ChosenStore, ContextInvalid, StoreUnknown, choose_store, contexts_path
from gateway.config.change import TooManyDocuments
from gateway.config.document_files import FilesInvalid
from gateway.config.errors import DocumentInvalid
from gateway.config.kinds import DocumentName, NameInvalid, parse_name
from gateway.config.ledger import Ledger
from gateway.config.meanwhile import ChangedMeanwhile
from gateway.config.path import PathInvalid
from gateway.config.refusal import ChangeRefused
from gateway.config.store.opening import describe, open_store
from gateway.config.store.store import StoreError, StoreInvalid
from gateway.config.wording import did_you_mean, listed, quote
from gateway.config.xml_document import XmlUnwritable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.config.holding import Holding
    from gateway.config.store.store import Store

T = TypeVar("T")

FAILED: Final = 1
USAGE: Final = 2
CONFLICT: Final = 3


class CommandFailed(Exception):
    """What a command found out; the message is for the operator."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Session:
    """One command at one store."""

    store: Store
    ledger: Ledger


def run(option: str, context: str, work: Callable[[Session], Awaitable[T]], *, creates: bool = False) -> T:
    """Do `work` at the store that is meant. `creates`: a local store that is not there is made."""
    try:
        chosen = choose_store(option, context, path=contexts_path())
        if not creates:
            refuse_missing_file(chosen)
        return asyncio.run(_work(chosen, work))
    except tuple(_STATUS) as error:
        fail(str(error), error.status if isinstance(error, CommandFailed) else _STATUS[type(error)])
    except StoreError as error:
        fail(str(error))


def fail(message: str, status: int = FAILED) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(status)


def refuse_missing_file(chosen: ChosenStore) -> None:
    """Opening a local store would make it: a mistyped path must not look like an empty store. Raises
    CommandFailed, and StoreInvalid for what is no path.
    """
    describe(chosen.url)
    path = chosen.url.removeprefix("sqlite://")
    if "://" not in path and path and not Path(path).exists():
        makes = "`crossgate apply` and `crossgate serve` make one"
        raise CommandFailed(f"there is no store {path} (from {chosen.because}); {makes}")


def names(texts: Iterable[str]) -> list[DocumentName]:
    """Raises NameInvalid."""
    return list(dict.fromkeys(map(parse_name, texts)))


def known(name: DocumentName, holding: Holding) -> DocumentName:
    """Return a name that the store has a document of. Raises CommandFailed with the nearest there is."""
    if name in holding.documents:
        return name
    there = [str(each) for each in holding.documents if each.kind == name.kind]
    nearest = did_you_mean(str(name), there) or (f"; there is {listed(there)}" if there else "")
    raise CommandFailed(f"{quote(str(name))} is not in the store{nearest}")


async def _work(chosen: ChosenStore, work: Callable[[Session], Awaitable[T]]) -> T:
    async with open_store(chosen.url) as store:
        return await work(Session(store, Ledger(store)))


_STATUS: Final[dict[type[Exception], int]] = {
    CommandFailed: FAILED,
    ChangedMeanwhile: CONFLICT,
    ChangeRefused: FAILED,
    FilesInvalid: FAILED,
    DocumentInvalid: FAILED,
    TooManyDocuments: FAILED,
    XmlUnwritable: FAILED,
    NameInvalid: USAGE,
    PathInvalid: USAGE,
    ContextInvalid: USAGE,
    StoreUnknown: USAGE,
    StoreInvalid: USAGE,
}

"""A store as the source of desired state: documents, and overrides folded into them.

Guarantees: all events of one revision of the store are one snapshot. A document that is not valid changes
nothing: the last good one stays in force, also across a restart. While the store is away what was last heard
stays in force; a gateway that starts then begins with what is on its disk and catches up.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections import defaultdict
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.config import keys
from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.files import parse_json
from gateway.config.gateway_document import GatewayDocument, validate_gateway
from gateway.config.override import read_override
from gateway.config.patch import fold
from gateway.config.refusal import MAX_DOCUMENT_BYTES
from gateway.config.store.store import StoreRefused
from gateway.config.validation import refused_changes, validate
from gateway.lifecycle.desired import Desired, DesiredModel, Sources
from gateway.lifecycle.last_good import LastGood, LastGoodUnusable, Saved
from gateway.turns import Turn
from gateway.workerpool.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Iterable

    from gateway.config.document import ModelDocument
    from gateway.config.store.store import Change, Entry, Store

log = logging.getLogger(__name__)

# How long a start waits for the store before it goes on with what is on disk.
PATIENCE_S = 3.0
_MAX_TOLD = 4000  # characters
# In place of a value that needs not be kept twice. Known by its identity: a store may hold any bytes.
_IN_FORCE = b"in force"


class StoreSource:
    """`changes` is to be iterated once. `last_good` None keeps nothing on disk."""

    def __init__(self, store: Store, last_good: LastGood | None, *, patience_s: float = PATIENCE_S) -> None:
        self.from_disk = False  # what is in force was read from the disk, and the store not heard since
        self.problem = ""  # why the store is not followed, or the last good state not kept
        self._store = store
        self._last_good = last_good
        self._patience_s = patience_s
        self._entries: dict[str, Entry] = {}  # {model: its document}
        self._overrides: defaultdict[str, dict[str, Entry]] = defaultdict(dict)  # {model: {id: override}}
        self._reverted: dict[str, int] = {}  # {model: revision at which an override of it went last}
        self._models: dict[str, DesiredModel] = {}
        self._problems: dict[str, str] = {}
        self._strangers: set[str] = set()  # keys outside the grammar, named once
        self._gateway = GatewayDocument()
        self._gateway_entry: Entry | None = None
        self._revision = 0
        self._saved: dict[str, Saved] = {}  # {key: as it was on disk}, until the store was first heard
        self._unsaved: set[str] = set()  # keys

    @property
    def where(self) -> str:
        return self._store.where

    @property
    def away(self) -> str:
        """Why the store is not followed, or the last good state not kept; '' while all is well."""
        return self._store.away or self.problem or ("it has not answered yet" if self.from_disk else "")

    async def changes(self) -> AsyncGenerator[Desired, None]:
        """Yield a snapshot at the start, and one for each revision that changes something.

        Raises:
            StoreRefused: at the start, and there is nothing on disk to serve.
        """
        await self._load()
        async with aclosing(self._follow()) as follow:
            heard = asyncio.ensure_future(anext(follow))
            try:
                await asyncio.wait((heard,), timeout=self._patience_s)
                if not heard.done() and self._saved:
                    log.warning(
                        "the store %s does not answer%s: starting with the last good state on disk",
                        self._store.where,
                        f" ({self._store.away})" if self._store.away else "",
                    )
                    yield await self._from_disk()
                while True:
                    change = await heard
                    heard = asyncio.ensure_future(anext(follow))
                    yield await self._take(change)
                    await self._save(everything=change.resync)
            finally:
                heard.cancel()
                await asyncio.gather(heard, return_exceptions=True)

    async def _follow(self) -> AsyncGenerator[Change, None]:
        """Watch the store; one that refuses us is asked again. Raises StoreRefused at the start."""
        backoff = Backoff(first_s=1.0, limit_s=30.0)
        while True:
            began_s = time.monotonic()
            try:
                async with aclosing(self._store.watch(keys.CONFIGURATION)) as watch:
                    async for change in watch:
                        self.problem = ""
                        yield change
            except StoreRefused as error:
                if not self._models and not self._saved and not self._revision:
                    raise
                if self.problem != str(error):
                    log.error("the store %s refuses: %s; what is served stays", self._store.where, error)
                self.problem = str(error)
            await asyncio.sleep(backoff.after_s(time.monotonic() - began_s))

    # From the store.

    async def _take(self, change: Change) -> Desired:
        """Return the snapshot after a change."""
        turn = Turn()  # a snapshot may have thousands of models
        if restored := change.resync and change.revision < self._revision:
            self._reverted.clear()  # its revisions mean nothing any more
        gone = self._gone(change)
        touched: set[str] = set()
        for key in gone:
            touched |= self._put_entry(key, None, change.revision)
            await turn.give_way()
        for entry in change.puts:
            touched |= self._put_entry(entry.key, entry, change.revision)
            await turn.give_way()
        changed: set[str] = set()
        for model in touched:
            before, problem = self._models.get(model), self._problems.get(model)
            self._evaluate(model)
            if self._models.get(model) is not before or self._problems.get(model) != problem:
                changed.add(model)
            await turn.give_way()
        came_back, self.from_disk = self.from_disk, False
        self._saved.clear()
        # that of our own entries: a store's own revision also counts what others write there. What a whole
        # reading does not have may have been deleted just before it.
        revisions = [entry.revision for entry in change.puts if entry.key in keys.CONFIGURATION]
        if gone or change.resync:
            revisions.append(change.revision)
        self._revision = max([0 if restored else self._revision, *revisions])
        if came_back:
            log.info("the store %s answers again, at revision %d", self._store.where, self._revision)
        return self._snapshot(changed)

    def _gone(self, change: Change) -> Collection[str]:
        """Return the keys that are there no longer."""
        if not change.resync:
            return change.deletes
        return self._keys() - {entry.key for entry in change.puts}

    def _keys(self) -> set[str]:
        overrides = {keys.override_key(model, id_) for model, of in self._overrides.items() for id_ in of}
        models = self._entries.keys() | self._models.keys()  # those from disk have no entries
        policy = set()
        if self._gateway_entry is not None or self._gateway != GatewayDocument():
            policy = {keys.GATEWAY_POLICY}
        return {keys.model_key(model) for model in models} | overrides | policy

    def _put_entry(self, key: str, entry: Entry | None, revision: int) -> set[str]:
        """Take over one entry, or its deletion; return the model that it is about."""
        if names := keys.named_by(key, keys.MODELS):
            if len(names) == 1:
                return self._put_document(names[0], entry)
        elif names := keys.named_by(key, keys.OVERRIDES):
            if len(names) == 2:
                return self._put_override(*names, entry, revision)
        elif key == keys.GATEWAY_POLICY:
            self._put_gateway(entry)
            return set()
        elif keys.named_by(key, keys.ROLLOUTS):
            return set()
        if key not in self._strangers and entry is not None:
            self._strangers.add(key)
            log.error("the store %s has %r, which is no key of ours; it is ignored", self._store.where, key)
        return set()

    def _put_document(self, model: str, entry: Entry | None) -> set[str]:
        known = self._entries.get(model)
        if entry is None:
            self._entries.pop(model, None)
            self._reverted.pop(model, None)
        elif known == entry:  # not by its revision alone: a store that was restored counts anew
            return set()
        else:
            self._entries[model] = entry
        return {model}

    def _put_override(self, model: str, id_: str, entry: Entry | None, revision: int) -> set[str]:
        overrides = self._overrides[model]
        if entry is not None:
            if overrides.get(id_) == entry:
                return set()
            overrides[id_] = entry
        elif overrides.pop(id_, None) is None:
            return set()
        else:
            self._reverted[model] = revision
        if not overrides:
            del self._overrides[model]
        return {model}

    def _put_gateway(self, entry: Entry | None) -> None:
        self._gateway_entry = entry
        if entry is None:
            self._gateway = GatewayDocument()
            self._problems.pop(keys.GATEWAY_POLICY, None)
            self._unsaved.add(keys.GATEWAY_POLICY)
            return
        try:
            self._gateway = validate_gateway(parse_value(entry.value))
        except DocumentInvalid as error:
            log.error("%s is not valid, the last good one, if any, stays: %s", entry.key, _told(error))
            self._problems[keys.GATEWAY_POLICY] = _told(error)
            self._gateway = self._saved_gateway() or self._gateway
        else:
            self._problems.pop(keys.GATEWAY_POLICY, None)
            self._unsaved.add(entry.key)

    # From documents to desired state.

    def _evaluate(self, model: str) -> None:
        """Work out the effective document of a model; a wrong one leaves the one before in force."""
        entry = self._entries.get(model)
        key = keys.model_key(model)
        if entry is None:
            self._models.pop(model, None)
            self._problems.pop(model, None)
            self._unsaved.add(key)
            return
        before = self._models.get(model) or self._saved_model(model)
        overrides = sorted(
            self._overrides.get(model, {}).items(), key=lambda item: (item[1].revision, item[0])
        )
        revision = max([entry.revision, self._reverted.get(model, 0), *(e.revision for _, e in overrides)])
        if entry.value is _IN_FORCE and before is not None:
            entry = self._entries[model] = dataclasses.replace(
                entry, value=msgspec.json.encode(before.document)
            )
        try:
            document = validate(_effective(entry, overrides), model=model)
            _check(document, before)
        except DocumentInvalid as error:
            self._problems[model] = _told(error)
            if before is not None:
                self._models[model] = before
            return
        self._problems.pop(model, None)
        if not overrides:
            self._entries[model] = dataclasses.replace(entry, value=_IN_FORCE)  # the document says it all
        known = self._models.get(model)
        if known is not None and (known.document, known.revision) == (document, revision):
            return
        self._models[model] = _desired(document, revision)
        self._unsaved.add(key)

    def _snapshot(self, changed: Iterable[str]) -> Desired:
        return Desired(
            dict(self._models),
            {model: problem for model, problem in self._problems.items() if model != keys.GATEWAY_POLICY},
            revision=self._revision,
            changed=frozenset(changed),
            gateway=self._gateway,
            gateway_problem=self._problems.get(keys.GATEWAY_POLICY, ""),
        )

    # From and to the disk.

    async def _load(self) -> None:
        if self._last_good is None:
            return
        try:
            saved = await asyncio.to_thread(self._last_good.load)
        except LastGoodUnusable as error:
            log.error("%s", error)
            self.problem = str(error)
            return
        self._saved = {each.key: each for each in saved if each.key in keys.CONFIGURATION}

    async def _from_disk(self) -> Desired:
        """Return the snapshot that was last in force."""
        turn = Turn()
        for key, saved in self._saved.items():
            names = keys.named_by(key, keys.MODELS)
            if names and len(names) == 1:
                model = self._saved_model(names[0])
                if model is not None:
                    self._models[names[0]] = model
            elif key == keys.GATEWAY_POLICY:
                self._gateway = self._saved_gateway() or self._gateway
            self._revision = max(self._revision, saved.revision)
            await turn.give_way()
        self.from_disk = True
        return self._snapshot(self._models)

    def _saved_model(self, model: str) -> DesiredModel | None:
        saved = self._saved.get(keys.model_key(model))
        if saved is None or saved.value is None:
            return None
        try:
            return _desired(validate(parse_value(saved.value), model=model), saved.revision)
        except DocumentInvalid as error:  # another release wrote it
            log.error("model %s: what was last in force is not valid for this release: %s", model, error)
            return None

    def _saved_gateway(self) -> GatewayDocument | None:
        saved = self._saved.get(keys.GATEWAY_POLICY)
        if saved is None or saved.value is None:
            return None
        try:
            return validate_gateway(parse_value(saved.value))
        except DocumentInvalid as error:  # another release wrote it
            log.error("%s: what was last in force is not valid for this release: %s", saved.key, error)
            return None

    async def _save(self, *, everything: bool) -> None:
        """Keep on disk what has changed since the last time."""
        if self._last_good is None or not (self._unsaved or everything):
            return
        unsaved = self._unsaved
        if everything:
            unsaved = {keys.GATEWAY_POLICY, *map(keys.model_key, self._models)}
        self._unsaved = set()
        turn, states = Turn(), []
        for key in unsaved:
            states.append(self._state_of(key))
            await turn.give_way()
        try:
            await asyncio.to_thread(
                self._last_good.save,
                states,
                only=keys.CONFIGURATION if everything else None,
            )
        except LastGoodUnusable as error:
            if self.problem != str(error):
                log.error("%s", error)
            self.problem = str(error)
            self._unsaved |= unsaved

    def _state_of(self, key: str) -> Saved:
        if key == keys.GATEWAY_POLICY:
            entry = self._gateway_entry
            value = None if entry is None else msgspec.json.encode(self._gateway)
            return Saved(key, self._revision if entry is None else entry.revision, value)
        model = self._models.get(key.removeprefix(keys.MODELS.start))
        if model is None:
            return Saved(key, self._revision, None)
        return Saved(key, model.revision, msgspec.json.encode(model.document))


def parse_value(value: bytes) -> object:
    """Return the plain data of a document as a store has it. Raises DocumentInvalid."""
    if len(value) > MAX_DOCUMENT_BYTES:  # it would hold up requests
        raise DocumentInvalid([Problem("", f"expected at most {MAX_DOCUMENT_BYTES} bytes, got {len(value)}")])
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise DocumentInvalid([Problem("", f"expected UTF-8, got byte {error.start}")]) from None
    return parse_json(text)


def _effective(entry: Entry, overrides: Iterable[tuple[str, Entry]]) -> object:
    """Return a document with its overrides. Raises DocumentInvalid."""
    data = parse_value(entry.value)
    patches: list[dict[str, Any]] = []
    for id_, override in overrides:
        try:
            patches.append(read_override(override.value).patch)
        except DocumentInvalid as error:
            raise DocumentInvalid([Problem(f"override {id_}", str(error))]) from None
    try:
        return fold(data, patches)
    except RecursionError:
        raise DocumentInvalid([Problem("", "an override of it is nested too deeply")]) from None


def _told(error: DocumentInvalid) -> str:
    """Return what is said of a document in logs, notes and the store: none of them is to be flooded."""
    text = str(error)
    return text if len(text) <= _MAX_TOLD else f"{text[:_MAX_TOLD]} ... ({len(error.problems)} problems)"


def _check(document: ModelDocument, before: DesiredModel | None) -> None:
    """Raises DocumentInvalid for what is wrong only in a store, or only after what was before."""
    problems = list(refused_changes(before.document, document)) if before is not None else []
    if not document.versions:
        problems.append(Problem("versions", "is missing; a store has no folders in which to find versions"))
    if problems:
        raise DocumentInvalid(problems)


def _desired(document: ModelDocument, revision: int) -> DesiredModel:
    return DesiredModel(document, Sources(document.versions), revision)

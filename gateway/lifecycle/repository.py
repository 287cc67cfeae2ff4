"""Triton's repository calls: they write desired state, as an operator would, and wait for what becomes of
it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.config.kinds import NameInvalid, model_name
from gateway.config.meanwhile import ChangedMeanwhile
from gateway.config.refusal import ChangeRefused
from gateway.config.store.store import StoreError
from gateway.config.transaction import Author
from gateway.errors import InvalidRequest, NotOffered, NotReady
from gateway.lifecycle.record import VersionState
from gateway.routing.table import ModelNotReady, UnknownModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.history import Action
    from gateway.config.ledger import Ledger
    from gateway.lifecycle.catalog import Catalog
    from gateway.lifecycle.reconciler import Reconciler

WAIT_S = 60.0  # for what becomes of a change


class ReadOnly(NotOffered):
    def __init__(self) -> None:
        super().__init__(
            "this gateway serves a directory, whose files say what is loaded; "
            "with --store models are loaded and unloaded by calls too"
        )


class LoadOverride(InvalidRequest):
    def __init__(self, parameter: str) -> None:
        super().__init__(
            f"parameter {parameter!r} is not taken: a model is loaded as its document says, "
            "which `crossgate apply` and `crossgate set` change"
        )


class NotChanged(InvalidRequest):
    """The change was refused; the message says why."""


class StoreUnreachable(NotReady):
    def __init__(self, error: StoreError) -> None:
        super().__init__(f"the change could not be written: {error}")


class Repository:
    """`ledger` is None for a directory."""

    def __init__(self, ledger: Ledger | None, reconciler: Reconciler, catalog: Catalog, gateway: str) -> None:
        self._ledger = ledger
        self._reconciler = reconciler
        self._catalog = catalog
        self._gateway = gateway

    async def load(self, model: str, parameters: list[str]) -> None:
        """Have a model loaded on all gateways, and wait until it is here.

        Raises:
            ReadOnly, LoadOverride, UnknownModel, NotChanged, StoreUnreachable
            ModelNotReady: it was written, and cannot be loaded, or not yet.
        """
        if parameters:
            raise LoadOverride(parameters[0])
        revision = await self._set_mode(model, "load", lambda mode: "always" if mode == "never" else mode)
        await self._wait(model, revision, lambda: self._is_loaded(model))

    async def unload(self, model: str) -> None:
        """Have a model unloaded on all gateways, and wait until it serves no more here.

        Raises:
            ReadOnly, UnknownModel, NotChanged, StoreUnreachable
            ModelNotReady: it was written, and the model still has requests.
        """
        revision = await self._set_mode(model, "unload", lambda _: "never")
        await self._wait(model, revision, lambda: self._is_unloaded(model))

    async def _set_mode(self, model: str, action: Action, change: Callable[[str], str]) -> int:
        """Change `load.mode`; return the revision, 0 where nothing had to be changed."""
        if self._ledger is None:
            raise ReadOnly
        if not self._catalog.knows(model):
            raise UnknownModel(model, self._catalog.models())

        def amend(document: dict[str, Any]) -> dict[str, Any]:
            load = document.get("load") or {}
            mode = change(load.get("mode", "always"))
            rest = {key: value for key, value in load.items() if key != "mode" and mode == "on_demand"}
            return {**document, "load": {**rest, "mode": mode}}

        author = Author(f"a client of gateway {self._gateway}", f"RepositoryModel{action.capitalize()}")
        try:
            committed = await self._ledger.amend(model_name(model), amend, author, action)
        except (ChangeRefused, ChangedMeanwhile, NameInvalid) as error:
            raise NotChanged(str(error)) from error
        except StoreError as error:
            raise StoreUnreachable(error) from error
        return committed.revision if committed is not None else 0

    async def _wait(self, model: str, revision: int, done: Callable[[], bool]) -> None:
        changed = asyncio.Event()
        self._catalog.watch(changed.set)
        try:
            async with asyncio.timeout(WAIT_S):
                while self._reconciler.looked_at < revision or not done():
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            states = "; ".join(f"version {s.version} is {s.state}" for s in self._catalog.versions(model))
            raise ModelNotReady(
                model, "", f"the change is written, and after {WAIT_S:.0f} s {states}"
            ) from None
        finally:
            self._catalog.unwatch(changed.set)

    def _is_loaded(self, model: str) -> bool:
        """Raises ModelNotReady where it cannot be."""
        served = self._reconciler.served.get(model)
        if served is None or served.desired is None:
            return False
        for version in served.declared() - served.current().keys():
            self._reconciler.demand(model, version)
        statuses = self._catalog.versions(model)
        for status in statuses:
            if status.state == VersionState.FAILED.value:
                raise ModelNotReady(model, status.version, status.reason)
        return all(status.state == VersionState.READY.value for status in statuses)

    def _is_unloaded(self, model: str) -> bool:
        return not self._reconciler.served[model].records if self._catalog.knows(model) else True

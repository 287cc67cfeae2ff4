"""The admin service of a gateway: opened with the listeners, and left out where nobody asked for it and it
cannot listen.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.admin.building import build_view
from gateway.admin.server import AdminServer
from gateway.binding import admin_listening
from gateway.workerpool.rendezvous import FolderUnsafe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.admin.view import Controls, Identity
    from gateway.clock import Clock
    from gateway.diagnosis import Diagnosis
    from gateway.serving import Serving
    from gateway.settings import GatewaySettings

log = logging.getLogger(__name__)


class Administration:
    """`listens_at` is where it listens once it is open, empty where it does not. `replace`: a gateway of the
    same name is followed, and its socket taken over.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        clock: Clock,
        serving: Serving,
        diagnosis: Diagnosis,
        controls: Controls,
        *,
        replace: bool,
    ) -> None:
        self.listens_at: list[str] = []
        self._settings = settings
        self._clock = clock
        self._serving = serving
        self._diagnosis = diagnosis
        self._controls = controls
        self._replace = replace
        self._server: AdminServer | None = None

    async def open(self, identity: Identity, addresses: Mapping[str, str]) -> None:
        """Listen. `addresses` is {what: where the gateway listens}.

        Raises:
            OSError, FolderUnsafe: only where the place was asked for.
            ListenerInvalid
        """
        asked = self._settings.admin
        if asked == "off":
            return
        server = self._build(identity, addresses)
        try:
            self.listens_at = await server.start()
        except (OSError, FolderUnsafe) as error:
            await server.close()
            if asked:
                raise
            log.warning("there is no admin service: %s; --admin says where to listen", error)
        else:
            self._server = server

    async def run(self) -> None:
        """What goes on while it is open, until cancelled."""
        if self._server is not None:
            await self._server.run()

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()

    def _build(self, identity: Identity, addresses: Mapping[str, str]) -> AdminServer:
        serving = self._serving
        view = build_view(
            identity,
            serving.reconciler,
            serving.dataplane,
            serving.pool,
            serving.accounts,
            serving.catalog,
            self._diagnosis.source,
            lambda: {**addresses, "admin": ", ".join(self.listens_at)},
            serving.tracing.recent,
            self._diagnosis.notes,
        )
        listening = admin_listening(self._settings, identity.gateway, replace=self._replace)
        return AdminServer(view, self._controls, serving.catalog, self._clock, listening)

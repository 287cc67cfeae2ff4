"""Which gateways may use this pool: by the names in their certificates."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

log = logging.getLogger(__name__)

_MAX_REPORTED = 1000
_NAMES = ("x509_subject_alternative_name", "x509_common_name")


class Gatekeeper:
    """`allowed` None lets everybody in: on this machine, or where the operator has said so."""

    def __init__(self, allowed: frozenset[str] | None) -> None:
        self._allowed = allowed
        self._reported: set[frozenset[str]] = set()

    def refusal(self, authentication: Mapping[str, Iterable[bytes]]) -> str:
        """Return why the caller of a gRPC method may not use the pool, '' where it may. The first time, it is
        logged too.
        """
        if self._allowed is None:
            return ""
        names = names_in(authentication)
        if names & self._allowed:
            return ""
        shown = ", ".join(sorted(names)) or "none"
        reason = f"the names in this gateway's certificate are not allowed here: {shown:.300}"
        if names not in self._reported and len(self._reported) < _MAX_REPORTED:
            self._reported.add(names)
            log.warning("a gateway is refused: the names in its certificate are %s", shown[:300])
        return reason


def names_in(authentication: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
    """Return the names of a verified certificate: its alternative names and its common name."""
    return frozenset(
        value.decode("utf-8", "replace") for key in _NAMES for value in authentication.get(key, ()) if value
    )

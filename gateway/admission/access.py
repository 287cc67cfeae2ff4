"""Who may do what: the access documents in force, asked once for each caller and model.

An open gateway asks nobody. One that enforces lets pass what some document allows, and refuses the rest: a
caller who shows no token, or one that nobody knows, is UNAUTHENTICATED unless a document is for everybody;
one who is known and not allowed is PERMISSION_DENIED.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gateway.errors import Denied, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config.access_document import AccessDocument, Action

_BEARER = "bearer "
_MAX_REMEMBERED = 4096
_MAX_TOKEN_CHARS = 8192


class TokenMissing(Unauthenticated):
    def __init__(self) -> None:
        super().__init__(
            "this gateway takes requests with a token only: metadata `authorization: Bearer <token>`"
        )


class TokenUnknown(Unauthenticated):
    def __init__(self) -> None:
        super().__init__("no access document knows this token")


class NotAllowed(Denied):
    def __init__(self, names: Sequence[str], action: Action, model: str) -> None:
        who = ", ".join(names)
        super().__init__(f"{who} may not {action} model {model!r}")


class Access:
    """`enforced` False lets everybody do everything. Changed only by `replace`, as a whole."""

    def __init__(self) -> None:
        self.enforced = False
        self._by_token: dict[str, list[AccessDocument]] = {}  # {digest: documents}
        self._for_all: list[AccessDocument] = []
        self._known: dict[tuple[str, str, Action], Unauthenticated | Denied | None] = {}

    def replace(self, documents: Sequence[AccessDocument], *, enforced: bool) -> None:
        self.enforced = enforced
        self._by_token = {}
        self._for_all = [document for document in documents if document.anonymous]
        for document in documents:
            for digest in document.tokens:
                self._by_token.setdefault(digest, []).append(document)
        self._known.clear()

    def check(self, metadata: Mapping[str, str], model: str, action: Action) -> None:
        """Let a caller pass who may do this to a model, whether it exists or not.

        Raises:
            TokenMissing, TokenUnknown, NotAllowed
        """
        refusal = self.refusal(metadata, model, action)
        if refusal is not None:
            raise refusal

    def refusal(
        self, metadata: Mapping[str, str], model: str, action: Action
    ) -> Unauthenticated | Denied | None:
        """Return why a caller may not do this to a model, None where it may."""
        if not self.enforced:
            return None
        key = (metadata.get("authorization", ""), model, action)
        try:
            return self._known[key]
        except KeyError:
            refusal = self._decide(*key)
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        self._known[key] = refusal
        return refusal

    def _decide(self, authorization: str, model: str, action: Action) -> Unauthenticated | Denied | None:
        documents = self._for_all
        token = (
            authorization[len(_BEARER) :].strip() if authorization[: len(_BEARER)].lower() == _BEARER else ""
        )
        if token and len(token) <= _MAX_TOKEN_CHARS:
            digest = f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"
            documents = [*documents, *self._by_token.get(digest, ())]
        if any(permission.covers(model, action) for document in documents for permission in document.allow):
            return None
        if documents and (documents != self._for_all or not authorization):
            return NotAllowed([document.access for document in documents], action, model)
        return TokenUnknown() if authorization else TokenMissing()

"""The kinds of document that operators write, and how one of them is named: `digits`, `policies/gateway`,
`access/readers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import inspect

from gateway.config.access_document import AccessDocument, validate_access
from gateway.config.document import ModelDocument
from gateway.config.gateway_document import GatewayDocument, validate_gateway
from gateway.config.keys import GATEWAY_POLICY as GATEWAY_KEY
from gateway.config.keys import access_key, document_history, document_history_key, is_name, model_key
from gateway.config.validation import validate
from gateway.config.wording import did_you_mean, quote

if TYPE_CHECKING:
    from gateway.config.store.store import Span

Kind = Literal["model", "gateway", "access"]
Document = ModelDocument | GatewayDocument | AccessDocument

KINDS: Final[tuple[Kind, ...]] = ("model", "gateway", "access")
_TYPES: Final[dict[Kind, inspect.Type]] = {
    "model": inspect.type_info(ModelDocument),
    "gateway": inspect.type_info(GatewayDocument),
    "access": inspect.type_info(AccessDocument),
}
_ONLY_ACCESS: Final = frozenset({"tokens", "anonymous", "allow"})
_ONLY_GATEWAY: Final = frozenset({"log_level", "frozen"})


class NameInvalid(Exception):
    """Text that names no document; the message says what does."""


class KindUnclear(Exception):
    """Data from which its kind cannot be told; the message says what would tell it."""


@dataclass(frozen=True, slots=True, order=True)
class DocumentName:
    """`str(name)` is how operators write it and `parse_name` reads it."""

    kind: Kind
    name: str

    @property
    def key(self) -> str:
        match self.kind:
            case "model":
                return model_key(self.name)
            case "gateway":
                return GATEWAY_KEY
            case "access":
                return access_key(self.name)

    @property
    def history(self) -> Span:
        return document_history(self.key)

    def history_key(self, generation: int) -> str:
        return document_history_key(self.key, generation)

    def __str__(self) -> str:
        return self.name if self.kind == "model" else self.key


GATEWAY: Final = DocumentName("gateway", "gateway")


def model_name(model: str) -> DocumentName:
    """Raises NameInvalid."""
    if not is_name(model):
        raise NameInvalid(
            f"{quote(model)} is no name: expected up to 100 letters, digits, '.', '_' and '-', "
            "the first a letter or digit"
        )
    return DocumentName("model", model)


def parse_name(text: str) -> DocumentName:
    """Read `digits` or `models/digits`, `policies/gateway` and `access/readers`. Raises NameInvalid."""
    folder, slash, name = text.rpartition("/")
    if text == GATEWAY_KEY:
        return GATEWAY
    if not slash or folder == "models":
        return model_name(name)
    if folder == "access":
        return DocumentName("access", model_name(name).name)
    nearest = did_you_mean(folder, ("models", "access")) or did_you_mean(text, (GATEWAY_KEY,))
    raise NameInvalid(f"{quote(text)} is no document: expected MODEL, {GATEWAY_KEY} or access/NAME{nearest}")


def name_of_key(key: str) -> DocumentName | None:
    """None for a key that holds no document of an operator's."""
    try:
        return parse_name(key) if "/" in key else None
    except NameInvalid:
        return None


def type_of(kind: Kind) -> inspect.Type:
    """What a document of this kind may say."""
    return _TYPES[kind]


def validate_document(name: DocumentName, data: object) -> Document:
    """Raises DocumentInvalid with every problem."""
    match name.kind:
        case "model":
            return validate(data, model=name.name)
        case "gateway":
            return validate_gateway(data)
        case "access":
            return validate_access(data, name=name.name)


def kind_of(data: dict[str, Any]) -> Kind:
    """Tell a document's kind by its keys. Raises KindUnclear."""
    if "model" in data:
        return "model"
    if not _ONLY_ACCESS.isdisjoint(data):
        return "access"
    if not _ONLY_GATEWAY.isdisjoint(data):
        return "gateway"
    if "access" in data:
        return "gateway" if data["access"] in ("open", "enforce") else "access"
    raise KindUnclear(
        "its kind cannot be told: expected `model: NAME`, `access: NAME`, or a key of the gateway's such as "
        "log_level; or say it with --kind"
    )

"""The document of all gateways, `policies/gateway`: what changes live for everything that they serve."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final, Literal

from msgspec import field, inspect

from gateway.config.document import SCHEMA, Part, Text, Trace
from gateway.config.errors import DocumentInvalid
from gateway.config.structure import Reading
from gateway.config.validation import refuse_other_schema


class GatewayDocument(Part, frozen=True):
    """`access: open` lets everybody do everything; `enforce` only what an access document allows. `frozen` is
    {model, with shell wildcards: why}: the documents of these models are not changed before they are
    unfrozen.
    """

    schema: Literal["crossgate/v1"] = SCHEMA
    access: Literal["open", "enforce"] = "open"
    trace: Trace = Trace()  # for models that say nothing about it; None = the process's own
    log_level: Literal["debug", "info", "warning", "error"] | None = None  # None = the process's own
    frozen: dict[Text, str] = field(default_factory=dict)

    def frozen_because(self, model: str) -> str | None:
        """Return why a model's document may not change now, None when it may."""
        pattern = self.frozen_by(model)
        return None if pattern is None else self.frozen[pattern]

    def frozen_by(self, model: str) -> str | None:
        """Return the pattern that keeps a model's document from being changed, None when it may change."""
        return next((pattern for pattern in self.frozen if fnmatchcase(model, pattern)), None)


_GATEWAY_DOCUMENT: Final = inspect.type_info(GatewayDocument)


def validate_gateway(data: object) -> GatewayDocument:
    """Return the document. Raises DocumentInvalid with every problem."""
    if isinstance(data, dict):
        refuse_other_schema(data.get("schema"))
    reading = Reading()
    document = reading.read(data, _GATEWAY_DOCUMENT, "")
    if reading.problems:
        raise DocumentInvalid(reading.problems)
    assert isinstance(document, GatewayDocument), "it has no problem"
    return document

"""Messages as plain data. Unlike protobuf's own JSON, numbers of 64 bits stay numbers, and nothing that is
empty is left out, so that scripts find each key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message


def plain(message: Message) -> dict[str, Any]:
    """Return a message as dicts, lists and scalars; None for what is absent."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(sorted(value.items()))
    if field.is_repeated:
        return [plain(each) for each in value] if field.message_type is not None else list(value)
    if field.has_presence and not message.HasField(field.name):
        return None
    return plain(value) if field.message_type is not None else value

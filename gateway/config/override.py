"""An override: a change of one model's document that reverts by itself. `overrides/<model>/<id>`.

It is written under a lease that is never renewed and lives `MARGIN_S` longer than the override is meant to.
The elected controller removes it in time, in a commit that says so in the history; where no gateway lives to
do that, the lease's end does. Nobody compares wall clocks: how much is left is what the store says of the
lease.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.config.errors import DocumentInvalid, Problem

MARGIN_S: Final = 15.0


class Override(msgspec.Struct, frozen=True, omit_defaults=True):
    """`patch` is a merge patch (RFC 7396) of the model's document. Overrides fold in the order of their
    revisions.
    """

    patch: dict[str, Any]
    for_s: float  # how long it was meant to be in force
    by: str
    change: str  # the id of the change, as in the history
    at: str  # RFC 3339, for people
    why: str = ""


def read_override(value: bytes) -> Override:
    """Raises DocumentInvalid."""
    try:
        return msgspec.json.decode(value, type=Override)
    except RecursionError:
        raise DocumentInvalid([Problem("", "is nested too deeply")]) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DocumentInvalid([Problem("", f"is no override: {error}")]) from None

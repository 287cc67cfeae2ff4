"""The grammar of a store's keys: which kinds of document there are, and under which key each is kept.

models/<model>                  what an operator wants of one model
overrides/<model>/<id>          a merge patch under a lease, in force until that expires
policies/gateway                what an operator wants of all gateways
rollouts/<model>                written by the elected controller
access/<name>                   who may do what
history/<model>/<generation>    each change, written in the commit that made it
history/_<folder>/<name>/<generation>   that of what is no model, such as _policies/gateway
gateways/<gateway>              a lease: who is there, and where its admin service listens
workers/<node>/<slot>           a lease: a slot of a pool, its device and address
status/<gateway>/<model>        a lease: state and reason per version
elections/<name>                a lease: who leads
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from gateway.config.store.store import Span

if TYPE_CHECKING:
    from collections.abc import Iterable

MODELS: Final = Span.folder("models")
OVERRIDES: Final = Span.folder("overrides")
POLICIES: Final = Span.folder("policies")
ROLLOUTS: Final = Span.folder("rollouts")
ACCESS: Final = Span.folder("access")
GATEWAYS: Final = Span.folder("gateways")
WORKERS: Final = Span.folder("workers")
STATUS: Final = Span.folder("status")
# What a gateway follows as one: models, overrides, policies and rollouts lie side by side, so that one watch
# has all that a commit changes of them.
CONFIGURATION: Final = Span(MODELS.start, ROLLOUTS.end)

GATEWAY_POLICY: Final = "policies/gateway"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_GENERATION_DIGITS: Final = 10


def model_key(model: str) -> str:
    return f"models/{model}"


def override_key(model: str, id: str) -> str:
    return f"overrides/{model}/{id}"


def overrides_of(model: str) -> Span:
    return Span.folder(f"overrides/{model}")


def history_key(model: str, generation: int) -> str:
    """Generations sort as their numbers do."""
    return f"history/{model}/{generation:0{_GENERATION_DIGITS}d}"


def history_of(model: str) -> Span:
    return Span.folder(f"history/{model}")


def document_history_key(key: str, generation: int) -> str:
    """As `history_key`, of the document under any key."""
    return f"{_history_folder(key)}/{generation:0{_GENERATION_DIGITS}d}"


def document_history(key: str) -> Span:
    return Span.folder(_history_folder(key))


def _history_folder(key: str) -> str:
    """No model's name begins with `_`, so no model's history can lie where another kind's does."""
    folder, _, name = key.partition("/")
    return f"history/{name}" if folder == "models" else f"history/_{folder}/{name}"


def access_key(name: str) -> str:
    return f"access/{name}"


def gateway_key(gateway: str) -> str:
    return f"gateways/{gateway}"


def worker_key(node: str, slot: str) -> str:
    """A slot's name may hold what keys may not, such as `:` and `,`."""
    return f"workers/{node}/{slot.replace(':', '_').replace(',', '+').replace('=', '-')}"


def status_key(gateway: str, model: str) -> str:
    return f"status/{gateway}/{model}"


def status_of(gateway: str) -> Span:
    return Span.folder(f"status/{gateway}")


def election_key(name: str) -> str:
    return f"elections/{name}"


def is_name(text: str) -> bool:
    """Whether this may name a model, a gateway, a node or an access document."""
    return _NAME.fullmatch(text) is not None


def named_by(key: str, span: Span) -> tuple[str, ...] | None:
    """Return the names in a key below a folder, None where the key is not of the grammar: `models/digits` is
    ('digits',), `overrides/digits/7` is ('digits', '7').
    """
    if key not in span:
        return None
    names: Iterable[str] = key[len(span.start) :].split("/")
    names = tuple(names)
    return names if all(map(is_name, names)) else None

"""Contexts: names for a store and the gateways that follow it, in a file of the user's.

A file holds no passwords: a store's comes from the environment, or from a file that its URL names.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import field

from gateway.config.errors import DocumentInvalid
from gateway.config.files import read_text
from gateway.config.keys import is_name
from gateway.config.wording import did_you_mean, listed, quote
from gateway.config.yaml12 import parse_yaml
from gateway.config.yaml_writer import write_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

# Where a packaged gateway keeps its store; used where nothing else is said and it is there.
DEFAULT_STORE: Final = Path("/var/lib/crossgate/store.db")


class ContextInvalid(Exception):
    """The file or a context of it cannot be used; the message says what would be right."""


class StoreUnknown(Exception):
    """Nothing says which store is meant; the message says how to."""


class Context(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`store` is a URL or path, `address` the gRPC address of a gateway, `admin` that of its admin service.
    The files are for TLS towards gateways.
    """

    store: str = ""
    address: str = ""
    admin: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""


class Contexts(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The file. `current` is in force where no other is named."""

    current: str = ""
    contexts: dict[str, Context] = field(default_factory=dict)

    def named(self, name: str) -> Context:
        """Raises ContextInvalid with the nearest name."""
        if name not in self.contexts:
            nearest = did_you_mean(name, self.contexts)
            there = f"; there is {listed(self.contexts)}" if self.contexts else "; there is none yet"
            raise ContextInvalid(f"there is no context {quote(name)}{nearest or there}")
        return self.contexts[name]

    def in_force(self, name: str = "") -> Context:
        """The context that is named, the current one, or an empty one. Raises ContextInvalid."""
        name = name or self.current
        return self.named(name) if name else Context()

    def with_context(self, name: str, context: Context) -> Contexts:
        """Raises ContextInvalid. The first becomes the current one."""
        if not is_name(name):
            raise ContextInvalid(f"{quote(name)} is no name: expected letters, digits, '.', '_' and '-'")
        return Contexts(self.current or name, {**self.contexts, name: context})

    def without(self, name: str) -> Contexts:
        """Raises ContextInvalid."""
        self.named(name)
        left = {key: context for key, context in self.contexts.items() if key != name}
        return Contexts("" if self.current == name else self.current, left)


@dataclass(frozen=True, slots=True)
class ChosenStore:
    """`because` says for messages where the URL comes from."""

    url: str
    because: str


def contexts_path(environment: Mapping[str, str] = os.environ) -> Path:
    root = environment.get("XDG_CONFIG_HOME") or ""
    # The specification of XDG_CONFIG_HOME passes a relative path over.
    folder = Path(root) if root.startswith("/") else Path.home() / ".config"
    return folder / "crossgate" / "contexts.yaml"


def read_contexts(path: Path) -> Contexts:
    """A file that is not there has no contexts. Raises ContextInvalid."""
    try:
        return msgspec.convert(parse_yaml(read_text(path)), Contexts)
    except FileNotFoundError:
        return Contexts()
    except (OSError, DocumentInvalid, msgspec.ValidationError) as error:
        raise ContextInvalid(f"{path}: {error}") from error


def write_contexts(path: Path, contexts: Contexts) -> None:
    """Replace the file as a whole; nobody else can read it. Raises ContextInvalid."""
    text = write_yaml(msgspec.to_builtins(contexts))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".contexts-")  # mode 0600
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ContextInvalid(f"{path}: {error}") from error


def choose_store(option: str, context: str, *, path: Path, default: Path = DEFAULT_STORE) -> ChosenStore:
    """The store of a command: what `--store` or CROSSGATE_STORE says, else the context's, else the machine's.

    Raises ContextInvalid, StoreUnknown.
    """
    if option and not context:
        return ChosenStore(option, "--store or CROSSGATE_STORE")
    contexts = read_contexts(path)
    name = context or contexts.current
    if found := contexts.in_force(name).store:
        return ChosenStore(found, f"context {name}")
    if context:
        raise StoreUnknown(
            f"context {quote(context)} names no store; `crossgate context set {context} --store URL`"
        )
    if default.exists():
        return ChosenStore(str(default), "the store of this machine")
    raise StoreUnknown(
        "which store? Name it with --store (etcd://host:2379/prefix, or the path of a local store), with "
        "CROSSGATE_STORE, or once and for all with `crossgate context set NAME --store URL`"
    )

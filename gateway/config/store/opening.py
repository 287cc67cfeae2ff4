"""Opens the store that a URL or a path names.

etcd://[user@]host:2379,host2:2379/prefix     etcd; without a port it is 2379, without a prefix /crossgate
etcds://...?ca=/p&cert=/p&key=/p&server_name= the same over TLS; all options may be left out
/path/to/file, sqlite:///path/to/file         one SQLite file on this machine

A user's password comes from the environment variable CROSSGATE_STORE_PASSWORD, or from the file that the
option `password_file` names, which is read again whenever etcd wants the password.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.config.store.etcd.address import EtcdAddress
from gateway.config.store.store import StoreInvalid
from gateway.config.wording import did_you_mean, quote

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from gateway.config.store.store import Store

_SCHEMES: Final = ("etcd", "etcds", "sqlite")
_MEANT: Final = {"http": "etcd", "https": "etcds", "file": "sqlite"}
_HOST_AND_PORT = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}(?:[,/].*)?")


def open_store(url: str, *, create: bool = True) -> AbstractAsyncContextManager[Store]:
    """The store as a context manager that closes it; what watches it must have ended before. Without `create`
    a file that is not there is a store that is away.

    Entering does not wait for etcd: while no endpoint answers, calls raise StoreAway.

    Raises StoreInvalid at once, which names no credentials.
    """
    found = _parse(url)
    # Imported when it is needed: whoever has one kind of store does not pay for the other's libraries.
    if isinstance(found, Path):
        from gateway.config.store.local import open_local

        return open_local(found, create=create)
    from gateway.config.store.etcd.store import open_etcd

    return open_etcd(found)


def describe(url: str) -> str:
    """Return how messages name the store, without credentials and without opening it. Raises StoreInvalid."""
    return str(_parse(url))


def _parse(url: str) -> EtcdAddress | Path:
    if not url or "\0" in url:
        raise StoreInvalid("expected a store: etcd://host:2379/prefix, or the path of a file")
    scheme, colon, rest = url.partition(":")
    if "://" not in url:
        if colon and scheme in (*_SCHEMES, *_MEANT) and rest.startswith("/"):
            raise StoreInvalid(f"expected {_MEANT.get(scheme, scheme)}://, with two slashes")
        if _HOST_AND_PORT.fullmatch(url):
            raise StoreInvalid(
                f"{quote(url)} is neither a URL nor a path; did you mean {quote('etcd://' + url)}?"
            )
        return Path(url)
    if scheme in ("etcd", "etcds"):
        return EtcdAddress.parse(url)
    if scheme == "sqlite":
        return _sqlite(url.removeprefix("sqlite://"))
    hint = f'; did you mean "{_MEANT[scheme]}"?' if scheme in _MEANT else did_you_mean(scheme, _SCHEMES)
    raise StoreInvalid(
        f"no store has the scheme {quote(scheme)}{hint or '; there are etcd, etcds and sqlite, or a path'}"
    )


def _sqlite(rest: str) -> Path:
    if not rest.startswith("/") or rest == "/":
        raise StoreInvalid("expected sqlite:///path/to/file, with three slashes")
    if "?" in rest or "#" in rest:
        raise StoreInvalid("a store in a file has no options")
    return Path(rest)

"""Where an etcd store is, and what opens it: the URL `etcd://[user@]host:2379,host2/prefix?option=value`.

`etcds://` is TLS. Without a prefix it is `/crossgate`. A password never stands in the URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from gateway.config.store.store import StoreInvalid
from gateway.config.wording import did_you_mean, listed, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

PASSWORD_VARIABLE: Final = "CROSSGATE_STORE_PASSWORD"
DEFAULT_PORT: Final = 2379
DEFAULT_PREFIX: Final = "/crossgate"

_EXAMPLE: Final = "etcd://host1:2379,host2:2379/crossgate"
_TLS_OPTIONS: Final = ("ca", "cert", "key", "server_name")
_OPTIONS: Final = ("password_file", *_TLS_OPTIONS)
_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files; without `ca` the system's authorities are trusted. `cert` and `key` are the client's own."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""  # the name in the server's certificate, where it is not the host of the endpoint


@dataclass(frozen=True, slots=True)
class EtcdAddress:
    """`str` of it names endpoints and prefix, and no credentials."""

    endpoints: tuple[str, ...]  # "host:port", IPv6 in brackets, none twice
    prefix: str  # "/crossgate", without a slash at the end
    user: str = ""  # empty: no user, or the one that the client's certificate names
    password_file: str = ""  # empty: the password is in the environment
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        return f"{'etcds' if self.tls else 'etcd'}://{','.join(self.endpoints)}{self.prefix}"

    @classmethod
    def parse(cls, url: str) -> EtcdAddress:
        """Raises StoreInvalid, which never repeats what may be a password."""
        scheme, _, rest = url.partition("://")
        rest, _, query = rest.partition("?")
        if "#" in rest:
            raise StoreInvalid("a store's URL has no # part; in a prefix it is written %23")
        authority, slash, path = rest.partition("/")
        if "@" in path:
            raise StoreInvalid(
                "the store's URL has a password, or an @ in its prefix: a password comes from the "
                f"environment variable {PASSWORD_VARIABLE} or the option password_file, and an @ is "
                "written %40"
            )
        user, at, hosts = authority.rpartition("@")
        options = _options(query)
        tls = None
        if scheme == "etcds":
            tls = TlsFiles(**{name: options.get(name, "") for name in _TLS_OPTIONS})
        _check_options(options, tls)
        return cls(
            endpoints=_endpoints(hosts),
            prefix=_prefix(slash + path),
            user=_user(user) if at else _no_user(options),
            password_file=options.get("password_file", ""),
            tls=tls,
        )


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if name not in _OPTIONS:
            hint = did_you_mean(name, _OPTIONS) or f"; an etcd store has {listed(_OPTIONS)}"
            # the name may be the rest of a password with a question mark in it
            raise StoreInvalid(f"the store's URL has an unknown option{hint}")
        if not equals or not value:
            raise StoreInvalid(f"the option {name} of the store's URL has no value")
        if name in options:
            raise StoreInvalid(f"the option {name} of the store's URL is given twice")
        options[name] = _decoded(value)
    return options


def _check_options(options: Mapping[str, str], tls: TlsFiles | None) -> None:
    if tls is None:
        for name in _TLS_OPTIONS:
            if name in options:
                raise StoreInvalid(f"the option {name} is of etcds:// (TLS), and the store's URL is etcd://")
    elif bool(tls.cert) != bool(tls.key):
        missing = "key" if tls.cert else "cert"
        raise StoreInvalid(
            f"the options cert and key of the store's URL belong together: {missing} is missing"
        )


def _user(text: str) -> str:
    if ":" in text:
        raise StoreInvalid(
            "a password does not belong into the store's URL, where logs and process lists show it: put it "
            f"into the environment variable {PASSWORD_VARIABLE}, or name a file with the option password_file"
        )
    if not text:
        raise StoreInvalid(f"the store's URL has an @ without a user; expected {_EXAMPLE}")
    return _decoded(text)


def _no_user(options: Mapping[str, str]) -> str:
    if "password_file" in options:
        raise StoreInvalid("the option password_file is of a user: expected etcd://USER@host...")
    return ""


def _endpoints(hosts: str) -> tuple[str, ...]:
    endpoints: dict[str, None] = {}  # a set that keeps the order
    for number, host in enumerate(hosts.split(","), 1):
        match = _ENDPOINT.fullmatch(host)
        port = int(match[2] or DEFAULT_PORT) if match else 0
        if match is None or not 0 < port < 65536:
            # not quoted: with a stray @ or slash this may be a password
            raise StoreInvalid(
                f"endpoint {number} of the store's URL is no host:port (IPv6 in brackets); expected "
                f"{_EXAMPLE}"
            )
        endpoints[f"{match[1].lower()}:{port}"] = None
    return tuple(endpoints)


def _prefix(path: str) -> str:
    prefix = _decoded(path.removesuffix("/")) or DEFAULT_PREFIX
    if "//" in path or prefix.endswith("/") or not prefix.isprintable():
        raise StoreInvalid(
            f"expected a prefix such as {DEFAULT_PREFIX} in the store's URL, got {quote(prefix)}"
        )
    return prefix


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise StoreInvalid("the store's URL has a % that stands for no UTF-8 text") from None

"""The password of an etcd store's user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.config.store.etcd.address import PASSWORD_VARIABLE
from gateway.config.store.store import StoreInvalid
from gateway.config.wording import quote

if TYPE_CHECKING:
    from gateway.config.store.etcd.address import EtcdAddress


def read_password(address: EtcdAddress) -> str:
    """Read anew each time, so that a file can be replaced while we run. Raises StoreInvalid."""
    if not address.password_file:
        password = os.environ.get(PASSWORD_VARIABLE, "")
        if not password:
            raise StoreInvalid(
                f"user {quote(address.user)} of {address} has no password: set the environment variable "
                f"{PASSWORD_VARIABLE}, or name a file with the option password_file"
            )
        return password
    path = Path(address.password_file)
    try:
        password = path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise StoreInvalid(f"the store's option password_file names {quote(str(path))}: {reason}") from None
    if not password:
        raise StoreInvalid(f"the store's option password_file names {quote(str(path))}, which is empty")
    return password

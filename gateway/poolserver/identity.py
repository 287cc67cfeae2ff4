"""The name that gateways are to expect in the pool's certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID

from gateway.poolserver.errors import PoolInvalid

if TYPE_CHECKING:
    from pathlib import Path


def identity_in(certificate: Path, wanted: str = "") -> str:
    """Return the name that a certificate is known by: the wanted one, else its first alternative name, else
    its common name.

    Raises:
        PoolInvalid: it cannot be read, or has no such name.
    """
    try:
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    except OSError as error:
        raise PoolInvalid(f"the certificate {certificate} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PoolInvalid(f"{certificate} is no certificate in PEM: {error}") from error
    try:
        alternatives = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = alternatives.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    names = names or [str(each.value) for each in parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not names:
        raise PoolInvalid(f"the certificate {certificate} has neither a DNS name nor a common name")
    if wanted and wanted not in names:
        raise PoolInvalid(f"the certificate {certificate} is of {', '.join(names)}, not of {wanted}")
    return wanted or names[0]

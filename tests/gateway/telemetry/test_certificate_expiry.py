from __future__ import annotations

from datetime import UTC, datetime

import pytest
import trustme

from gateway.telemetry.certificate_expiry import CertificateExpiry, Expiry, expiry_s

END = datetime(2031, 5, 1, tzinfo=UTC)
LATER = datetime(2033, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def chain(authority, *ends):
    """A PEM file of certificates that end so"""
    return b"".join(authority.issue_cert("gateway", not_after=end).cert_chain_pems[0].bytes() for end in ends)


def test_a_chain_ends_with_its_first_certificate_that_ends(authority):
    assert expiry_s(chain(authority, LATER, END)) == END.timestamp()


@pytest.mark.parametrize(
    "pem", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_chain_is_an_error(pem):
    with pytest.raises(ValueError, match=r"."):
        expiry_s(pem)


def test_file_is_read_again_only_when_it_changes(authority, tmp_path, monkeypatch):
    file = tmp_path / "grpc.pem"
    file.write_bytes(chain(authority, END))
    expiry = CertificateExpiry({"grpc": file})
    assert expiry.sample() == [Expiry("grpc", END.timestamp())]
    reads = []
    monkeypatch.setattr("gateway.telemetry.certificate_expiry.expiry_s", lambda pem: reads.append(pem) or 7.0)
    assert expiry.sample() == [Expiry("grpc", END.timestamp())]
    assert reads == []
    replacement = tmp_path / "new.pem"
    replacement.write_bytes(chain(authority, LATER))
    replacement.rename(file)
    assert expiry.sample() == [Expiry("grpc", 7.0)]
    assert len(reads) == 1


@pytest.mark.parametrize("broken", ["gone", "nonsense"])
def test_file_that_cannot_be_read_leaves_what_was_known_and_is_logged_once(
    authority, tmp_path, caplog, broken
):
    file = tmp_path / "admin.pem"
    file.write_bytes(chain(authority, END))
    expiry = CertificateExpiry({"admin": file, "worker": tmp_path / "never.pem"})
    expiry.sample()
    caplog.clear()
    if broken == "gone":
        file.unlink()
    else:
        file.write_bytes(b"nonsense")
    assert expiry.sample() == expiry.sample() == [Expiry("admin", END.timestamp())]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    file.write_bytes(chain(authority, LATER))
    assert expiry.sample() == [Expiry("admin", LATER.timestamp())]

"""The files of a TLS listener: what can be used, and what becomes of a replacement."""

from __future__ import annotations

import os

import pytest
import trustme

from gateway.frontend.certificates import Certificates
from gateway.frontend.listening import ListenerInvalid, Tls

NAME = "gateway.test"


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def write(tls, certificate, *, key=None):
    """Replace the files as renewals do: each at once, one after the other."""
    for path, blob in (
        (tls.certificate, certificate.cert_chain_pems[0]),
        (tls.key, key or certificate.private_key_pem),
    ):
        fresh = path.with_suffix(".new")
        blob.write_to_path(fresh)
        os.replace(fresh, path)


@pytest.fixture
def tls(authority, tmp_path):
    files = Tls(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    authority.cert_pem.write_to_path(files.client_ca)
    write(files, authority.issue_cert(NAME))
    return files


def test_contents_are_those_of_the_files(tls):
    pem = Certificates(tls).pem
    assert pem == (tls.certificate.read_bytes(), tls.key.read_bytes(), tls.client_ca.read_bytes())
    assert Certificates(Tls(tls.certificate, tls.key)).pem.client_ca is None


def test_nothing_is_new_in_files_that_were_not_replaced(tls):
    certificates = Certificates(tls)
    assert certificates.renewed() is None


def test_replacement_is_returned_once(tls, authority):
    certificates = Certificates(tls)
    old = certificates.pem
    write(tls, authority.issue_cert(NAME))
    renewed = certificates.renewed()
    assert renewed == certificates.pem
    assert renewed.certificate == tls.certificate.read_bytes() != old.certificate
    assert certificates.renewed() is None


def test_key_of_another_certificate_keeps_the_old_pair_until_both_are_there(tls, authority, caplog):
    certificates = Certificates(tls)
    old, new = certificates.pem, authority.issue_cert(NAME)
    write(tls, new, key=authority.issue_cert(NAME).private_key_pem)
    assert certificates.renewed() is None
    assert certificates.renewed() is None
    assert certificates.pem == old
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the old ones stay in force" in caplog.text
    write(tls, new)
    assert certificates.renewed().certificate == new.cert_chain_pems[0].bytes()


@pytest.mark.parametrize("file", ["certificate", "key", "client_ca"])
def test_file_that_vanishes_keeps_the_old_contents(tls, file, caplog):
    certificates = Certificates(tls)
    getattr(tls, file).unlink()
    assert certificates.renewed() is None
    assert str(getattr(tls, file)) in caplog.text


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("certificate", None, "tls.crt cannot be read: No such file"),
        ("key", None, "tls.key cannot be read: No such file"),
        ("client_ca", None, "ca.crt cannot be read: No such file"),
        ("certificate", b"no PEM", "tls.crt and key"),
        ("key", b"", "tls.key cannot be used"),
        ("key", trustme.CA().private_key_pem.bytes(), "KEY_VALUES_MISMATCH|KEY_TYPE_MISMATCH"),
        ("client_ca", b"no PEM", "ca.crt holds no certificates"),
    ],
)
def test_files_that_cannot_be_used_are_refused_at_the_start(tls, file, content, words):
    path = getattr(tls, file)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ListenerInvalid, match=words):
        Certificates(tls)


def test_key_under_a_password_is_refused_without_asking_for_it(tls):
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    tls.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ListenerInvalid, match=r"tls\.key cannot be used"):
        Certificates(tls)


def test_directory_in_place_of_a_file_is_named(tls):
    tls.key.unlink()
    tls.key.mkdir()
    with pytest.raises(ListenerInvalid, match="Is a directory"):
        Certificates(tls)

from __future__ import annotations

import dataclasses
import os

import pytest
import trustme

from gateway.frontend.listening import Tls
from gateway.poolserver.errors import PoolInvalid
from gateway.poolserver.gatekeeper import Gatekeeper, names_in
from gateway.poolserver.identity import identity_in
from gateway.poolserver.listening import PoolListening
from gateway.poolserver.settings import PoolSettings

PLAIN = PoolSettings("/tmp/store", "grpc://127.0.0.1:9100", "n")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    issued = trustme.CA().issue_cert("pool.example", "second.example")
    issued.cert_chain_pems[0].write_to_path(folder / "crt")
    trustme.CA().issue_cert(common_name="by-its-common-name").cert_chain_pems[0].write_to_path(folder / "cn")
    (folder / "bad").write_text("nothing")
    return folder


def tls(files):
    return Tls(files / "crt", files / "key", files / "ca")


def listening(**changes):
    return PoolListening.of(dataclasses.replace(PLAIN, **changes))


def test_without_tls_a_pool_is_for_this_machine():
    found = listening()
    assert (str(found.address), str(found.advertised)) == ("grpc://127.0.0.1:9100",) * 2
    assert (found.identity, found.allowed) == ("", None)


def test_with_tls_only_named_gateways_are_let_in(files):
    found = listening(listen="grpc://10.0.0.7:9100", tls=tls(files), allowed_gateways=frozenset({"g"}))
    assert (found.identity, found.allowed) == ("pool.example", {"g"})


def test_with_tls_on_this_machine_every_gateway_of_the_ca_is_let_in(files):
    assert listening(tls=tls(files)).allowed is None


def test_advertised_address_may_differ():
    found = listening(listen="grpc://0.0.0.0:9100", insecure=True, advertise="gpu-1.example:9200")
    assert str(found.advertised) == "grpc://gpu-1.example:9200"


def test_folder_of_workers_goes_with_the_address():
    one, same = listening().default_folder(), listening().default_folder()
    assert one == same
    assert str(os.geteuid()) in one.name
    assert listening(listen="unix:/run/x.sock").default_folder() != one
    assert listening(listen="grpc://127.0.0.1:0").default_folder() is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"listen": "grpc://10.0.0.7:9100"}, "is open to other machines"),
        ({"listen": "grpc://0.0.0.0:9100", "insecure": True}, "--advertise"),
        ({"listen": "grpc://0.0.0.0:1", "insecure": True, "store": "etcd://127.0.0.1:2379"}, "--advertise"),
        ({"listen": "grpc://10.0.0.7:9100", "insecure": True, "advertise": "host"}, "expected host:port"),
        ({"identity": "pool.example"}, "--tls-cert is missing"),
        ({"allowed_gateways": frozenset({"g"})}, "--tls-cert is missing"),
        ({"listen": "unix:/run/x.sock", "insecure": True}, "a Unix socket has neither"),
        ({"listen": "unix:/run/x.sock", "advertise": "h:1"}, "a Unix socket has neither"),
        ({"listen": "x"}, "expected unix:/path"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(PoolInvalid, match=message):
        listening(**changes)


def test_tls_has_conditions_of_its_own(files):
    with pytest.raises(PoolInvalid, match="no gateway may connect"):
        listening(listen="grpc://10.0.0.7:9100", tls=tls(files))
    with pytest.raises(PoolInvalid, match="--insecure is for"):
        listening(tls=tls(files), insecure=True)
    with pytest.raises(PoolInvalid, match="--tls-client-ca"):
        listening(tls=dataclasses.replace(tls(files), client_ca=None))


def test_identity_is_a_name_in_the_certificate(files):
    assert identity_in(files / "crt") == "pool.example"
    assert identity_in(files / "crt", "second.example") == "second.example"
    assert identity_in(files / "cn") == "by-its-common-name"
    with pytest.raises(PoolInvalid, match=r"is of pool\.example, second\.example, not of third"):
        identity_in(files / "crt", "third")
    with pytest.raises(PoolInvalid, match="No such file"):
        identity_in(files / "missing")
    with pytest.raises(PoolInvalid, match="is no certificate"):
        identity_in(files / "bad")


def test_names_are_those_of_the_certificate():
    found = {"x509_common_name": [b""], "x509_subject_alternative_name": [b"a", b"spiffe://x/y"], "z": [b"c"]}
    assert names_in(found) == {"a", "spiffe://x/y"}


def test_gateway_is_let_in_by_any_of_its_names(caplog):
    keeper = Gatekeeper(frozenset({"a", "b"}))
    assert keeper.refusal({"x509_common_name": [b"b"]}) == ""
    assert Gatekeeper(None).refusal({}) == ""
    for _ in range(2):
        assert "not allowed here: c" in keeper.refusal({"x509_common_name": [b"c"]})
    assert len(caplog.records) == 1
    assert "none" in keeper.refusal({})

"""Users, passwords, tokens, permissions and TLS of a real etcd."""

import asyncio
import shutil
from dataclasses import replace
from random import Random

import pytest
import trustme
from etcd_process import EtcdProcess, Tls
from store_home import closing, following

from gateway.config.store.etcd.address import EtcdAddress
from gateway.config.store.etcd.store import open_etcd
from gateway.config.store.etcd.timing import Timing
from gateway.config.store.opening import open_store
from gateway.config.store.store import Put, Span, StoreAway, StoreRefused

pytestmark = pytest.mark.slow

MODELS = Span.folder("models")
PASSWORD = "a password: @/?#"


@pytest.fixture
def etcd(tmp_path):
    with EtcdProcess(tmp_path, auth=True, flags=["--auth-token-ttl", "1"]) as process:
        process.add_user("writer", PASSWORD, "crossgate")
        process.add_user("reader", PASSWORD, "crossgate", "READ")
        process.add_user("nobody", PASSWORD)
        yield process


@pytest.fixture(autouse=True)
def password(monkeypatch):
    monkeypatch.setenv("CROSSGATE_STORE_PASSWORD", PASSWORD)


async def is_refused(url, match=None):
    """Whether nothing can be read there."""
    async with open_etcd(EtcdAddress.parse(url), Timing(call_s=1.0), Random(0)) as store:
        with pytest.raises(StoreAway, match=match):
            await store.get("models/a")
    return True


def url_of(etcd, user, options=""):
    return f"etcd://{user}@{etcd.endpoint}/crossgate{options}"


async def test_a_session_outlives_its_token(etcd):
    async with open_store(url_of(etcd, "writer")) as store, closing(store.watch(MODELS)) as watch:
        await following(watch)
        lease = await store.grant(30.0)
        await asyncio.sleep(2.0)  # the token lives for 1 s
        await store.commit([Put("models/a", b"1", lease)])
        assert (await following(watch)).puts[0].key == "models/a"
        await asyncio.sleep(2.0)
        await store.renew(lease)
        await asyncio.sleep(2.0)
        assert (await store.get("models/a")).value == b"1"


async def test_a_restart_that_forgets_all_tokens_is_noticed_by_nobody(etcd):
    async with open_store(url_of(etcd, "writer")) as store, closing(store.watch(MODELS)) as watch:
        await following(watch)
        lease = await store.grant(30.0)
        for n in range(3):
            await etcd.stop()
            await etcd.start()
            match n:
                case 0:
                    await store.commit([Put("models/a", b"1")])
                case 1:
                    await store.renew(lease)
                    await store.commit([Put("models/a", b"2")])
                case 2:  # the watch finds its way by itself
                    etcd.post(
                        "kv/put", {"key": "L2Nyb3NzZ2F0ZS9tb2RlbHMvYQ==", "value": "Mw=="}, etcd.root_token()
                    )
            change = await following(watch)
            assert [entry.value for entry in change.puts] == [b"%d" % (n + 1)]
            assert not change.resync


async def test_a_password_file_is_read_again(etcd, tmp_path):
    file = tmp_path / "password"
    file.write_text("wrong\n")
    async with open_store(url_of(etcd, "writer", f"?password_file={file}")) as store:
        with pytest.raises(StoreRefused, match="password is wrong"):
            await store.get("models/a")
        file.unlink()
        with pytest.raises(StoreAway, match="password_file"):
            await store.get("models/a")
        file.write_text(f"{PASSWORD}\n")
        assert await store.get("models/a") is None


async def test_a_wrong_password_is_refused_and_not_repeated(etcd, monkeypatch):
    monkeypatch.setenv("CROSSGATE_STORE_PASSWORD", "not-this-one")
    async with open_store(url_of(etcd, "writer")) as store:
        calls = [
            store.read(MODELS),
            store.get("models/a"),
            store.commit([Put("models/a", b"1")]),
            store.grant(5.0),
            anext(store.watch(MODELS)),
        ]
        for call in calls:
            with pytest.raises(StoreRefused, match='user "writer" or its password is wrong') as raised:
                await call
            assert "not-this-one" not in str(raised.value)


async def test_a_client_without_a_user_is_told_to_name_one(etcd):
    async with open_store(etcd.url) as store:
        with pytest.raises(StoreRefused, match="USER@host"):
            await store.get("models/a")


async def test_a_user_is_no_harm_where_etcd_wants_none(tmp_path):
    with EtcdProcess(tmp_path) as open_etcd:
        async with open_store(url_of(open_etcd, "writer")) as store:
            await store.commit([Put("models/a", b"1")])
            assert (await store.get("models/a")).value == b"1"


async def test_a_missing_permission_is_named_with_the_keys_it_is_for(etcd):
    async with open_store(url_of(etcd, "nobody")) as store:
        with pytest.raises(
            StoreRefused, match=r"may not read /crossgate/models/ to /crossgate/models0"
        ) as raised:
            await store.read(MODELS)
        assert "etcdctl role grant-permission ROLE readwrite --prefix /crossgate/" in str(raised.value)
        with pytest.raises(StoreRefused, match="may not read /crossgate/models/"):
            await anext(store.watch(MODELS))
    async with open_store(url_of(etcd, "reader")) as store, closing(store.watch(MODELS)) as watch:
        assert (await following(watch)).puts == ()
        with pytest.raises(StoreRefused, match="may not write /crossgate/models/a"):
            await store.commit([Put("models/a", b"1")])
        assert store.away == ""


async def test_a_watch_whose_permission_is_taken_ends(etcd):
    address = EtcdAddress.parse(url_of(etcd, "reader"))
    async with (
        open_etcd(address, replace(Timing(), relist_s=0.2)) as store,
        closing(store.watch(MODELS)) as watch,
    ):
        await following(watch)
        etcd.forbid("reader", "crossgate")
        with pytest.raises(StoreRefused, match="may not read /crossgate/models/"):
            await following(watch)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other-ca.pem")
    for issuer, name, host in [
        (ca, "server", "127.0.0.1"),
        (ca, "named", "etcd.internal"),
        (ca, "client", "gateway.internal"),
        (other, "stranger", "gateway.internal"),
    ]:
        certificate = issuer.issue_cert(host)
        certificate.private_key_pem.write_to_path(folder / f"{name}-key.pem")
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(folder / f"{name}.pem", append=True)
    return folder


@pytest.fixture(scope="module")
def tls_etcd(certificates, tmp_path_factory):
    tls = tls_of(certificates, "server")
    with EtcdProcess(tmp_path_factory.mktemp("etcd"), tls=tls) as process:
        yield process


def tls_of(certificates, name):
    return Tls(certificates / "ca.pem", certificates / f"{name}.pem", certificates / f"{name}-key.pem")


class TestTls:
    def url(self, tls_etcd, certificates, ca="ca", options=""):
        client = f"cert={certificates}/client.pem&key={certificates}/client-key.pem"
        return f"etcds://{tls_etcd.endpoint}/crossgate?ca={certificates}/{ca}.pem&{client}{options}"

    async def test_client_and_server_know_each_other_by_certificates(self, tls_etcd, certificates):
        async with (
            open_store(self.url(tls_etcd, certificates)) as store,
            closing(store.watch(MODELS)) as watch,
        ):
            await following(watch)
            await store.commit([Put("models/a", b"1")])
            assert (await following(watch)).puts[0].value == b"1"

    async def test_a_client_without_a_certificate_does_not_get_in(self, tls_etcd, certificates):
        assert await is_refused(f"etcds://{tls_etcd.endpoint}/crossgate?ca={certificates}/ca.pem")

    async def test_a_server_of_another_authority_is_not_trusted(self, tls_etcd, certificates):
        url = self.url(tls_etcd, certificates, ca="other-ca")
        assert await is_refused(url, r"(?i)certificate|handshake")

    async def test_certificates_that_are_replaced_are_used_without_opening_anew(
        self, tls_etcd, certificates, tmp_path
    ):
        for name, of in [("cert", "stranger"), ("key", "stranger-key")]:
            shutil.copy(certificates / f"{of}.pem", tmp_path / f"{name}.pem")
        options = f"ca={certificates}/ca.pem&cert={tmp_path}/cert.pem&key={tmp_path}/key.pem"
        async with open_store(f"etcds://{tls_etcd.endpoint}/crossgate?{options}") as store:
            with pytest.raises(StoreAway):
                await store.get("models/a")
            for name, of in [("cert", "client"), ("key", "client-key")]:
                shutil.copy(certificates / f"{of}.pem", tmp_path / "new.pem")
                (tmp_path / "new.pem").rename(tmp_path / f"{name}.pem")
            await store.get("models/a")
            assert store.away == ""

    async def test_plain_text_does_not_get_in(self, tls_etcd):
        assert await is_refused(f"etcd://{tls_etcd.endpoint}/crossgate")

    async def test_the_name_in_the_certificate_may_be_another(self, tmp_path, certificates):
        tls = tls_of(certificates, "named")
        with EtcdProcess(tmp_path, tls=tls) as etcd:
            assert await is_refused(self.url(etcd, certificates))
            async with open_store(
                self.url(etcd, certificates, options="&server_name=etcd.internal")
            ) as store:
                assert await store.get("models/a") is None

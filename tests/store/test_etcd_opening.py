"""What a store's URL may be, and what is said where it is wrong."""

import traceback
from pathlib import Path

import pytest

from gateway.config.store.etcd.address import EtcdAddress, TlsFiles
from gateway.config.store.opening import describe, open_store
from gateway.config.store.store import StoreInvalid


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("etcd://h", EtcdAddress(("h:2379",), "/crossgate")),
        ("etcd://h/", EtcdAddress(("h:2379",), "/crossgate")),
        ("etcd://h:1/p", EtcdAddress(("h:1",), "/p")),
        ("etcd://h:1/p/", EtcdAddress(("h:1",), "/p")),
        ("etcd://a:1,b,c.example.org:3/a/b", EtcdAddress(("a:1", "b:2379", "c.example.org:3"), "/a/b")),
        ("etcd://a,A:2379,a", EtcdAddress(("a:2379",), "/crossgate")),
        (
            "etcd://10.0.0.1,[::1]:3,[fe80::1]",
            EtcdAddress(("10.0.0.1:2379", "[::1]:3", "[fe80::1]:2379"), "/crossgate"),
        ),
        ("etcd://me@h/p", EtcdAddress(("h:2379",), "/p", user="me")),
        ("etcd://me%40home@h/p", EtcdAddress(("h:2379",), "/p", user="me@home")),
        ("etcd://me@h/p?password_file=/s/p", EtcdAddress(("h:2379",), "/p", user="me", password_file="/s/p")),
        ("etcds://h/p", EtcdAddress(("h:2379",), "/p", tls=TlsFiles())),
        (
            "etcds://h/a%20b?ca=/c&cert=/d&key=/e&server_name=n",
            EtcdAddress(("h:2379",), "/a b", tls=TlsFiles("/c", "/d", "/e", "n")),
        ),
    ],
)
def test_what_a_url_says(url, expected):
    assert EtcdAddress.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "expected a store"),
        ("ectd://h", 'did you mean "etcd"'),
        ("ETCD://h", 'did you mean "etcd"'),
        ("etcs://h", 'did you mean "etcd'),
        ("https://h:2379", 'did you mean "etcds"'),
        ("http://h:2379", 'did you mean "etcd"'),
        ("file:///p", 'did you mean "sqlite"'),
        ("consul://h", "there are etcd, etcds and sqlite"),
        ("etcd:/h/p", "two slashes"),
        ("127.0.0.1:2379", 'did you mean "etcd://127.0.0.1:2379"'),
        ("etcd-1:2379,etcd-2:2379/p", 'did you mean "etcd://etcd-1:2379,etcd-2:2379/p"'),
        ("sqlite://p", "three slashes"),
        ("sqlite:///p?mode=ro", "no options"),
        ("etcd://", "endpoint 1"),
        ("etcd://h:0", "endpoint 1"),
        ("etcd://a,h:65536", "endpoint 2"),
        ("etcd://a,,b", "endpoint 2"),
        ("etcd://::1", "IPv6 in brackets"),
        ("etcd://h h", "endpoint 1"),
        ("etcd://h//p", "a prefix such as"),
        ("etcd://h/a%00", "a prefix such as"),
        ("etcd://h/a%ff", "UTF-8"),
        ("etcd://h/p#q", "#"),
        ("etcd://@h/p", "without a user"),
        ("etcds://h/p?sever_name=x", 'did you mean "server_name"'),
        ("etcds://h/p?colour=x", '"ca"'),
        ("etcds://h/p?ca=", "ca of the store's URL has no value"),
        ("etcds://h/p?ca", "ca of the store's URL has no value"),
        ("etcds://h/p?ca=/a&ca=/a", "twice"),
        ("etcd://h/p?ca=/a", "etcds://"),
        ("etcds://h/p?cert=/a", "key is missing"),
        ("etcds://h/p?key=/a", "cert is missing"),
        ("etcd://h/p?password_file=/a", "USER"),
    ],
)
def test_a_mistyped_url_is_refused_with_what_would_be_right(url, says):
    for use in (open_store, describe):
        with pytest.raises(StoreInvalid) as raised:
            use(url)
        assert says in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "etcd://me:sec@ret@h/p",
        "etcd://me:secret@h/p",
        "etcd://me:sec/ret@h/p",
        "etcd://me:sec?ret@h/p",
        "etcd://me:sec#ret@h/p",
        "etcds://me:secret@h,b/p?ca=/c",
        "etcd://me:secret",
        "etcd://secret@@h:x/p",
        "ectd://me:secret@h/p",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url):
    for use in (open_store, describe):
        with pytest.raises(StoreInvalid) as raised:
            use(url)
        text = "".join(traceback.format_exception(raised.value, chain=True, limit=0))
        assert not any(part in text for part in ("secret", "sec@", "ret@", "sec/", "ret"))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("etcd://me@a:1,b/p?password_file=/s", "etcd://a:1,b:2379/p"),
        ("etcds://a/p?cert=/c&key=/k", "etcds://a:2379/p"),
        ("/var/lib/store.db", "/var/lib/store.db"),
        ("store.db", "store.db"),
        ("sqlite:///var/lib/store.db", "/var/lib/store.db"),
    ],
)
def test_a_store_is_described_without_credentials(url, text):
    assert describe(url) == text


async def test_a_user_needs_a_password(monkeypatch, tmp_path):
    monkeypatch.delenv("CROSSGATE_STORE_PASSWORD", raising=False)
    empty = tmp_path / "empty"
    empty.write_text("\n")
    for option, says in [
        ("", "CROSSGATE_STORE_PASSWORD"),
        (f"?password_file={tmp_path / 'missing'}", "No such file"),
        (f"?password_file={empty}", "empty"),
    ]:
        with pytest.raises(StoreInvalid, match=says):
            async with open_store(f"etcd://me@127.0.0.1:1/p{option}"):
                pass


async def test_tls_files_that_cannot_be_used_are_named(tmp_path):
    no_pem = tmp_path / "no.pem"
    no_pem.write_text("hello")
    for path, says in [
        (tmp_path / "missing.pem", "No such file"),
        (no_pem, "no PEM file"),
        (tmp_path, "directory"),
    ]:
        with pytest.raises(StoreInvalid, match=says) as raised:
            async with open_store(f"etcds://127.0.0.1:1/p?ca={path}"):
                pass
        assert "option ca" in str(raised.value)


async def test_a_path_opens_a_local_store(tmp_path):
    for url in (str(tmp_path / "a.db"), f"sqlite://{tmp_path}/b.db"):
        async with open_store(url) as store:
            assert store.where.endswith(".db")
            assert Path(store.where).is_file()

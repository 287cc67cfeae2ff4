"""A gateway with its etcd and a pool in two network namespaces: the cable between them is cut and healed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time

import pytest
import trustme
from checked_load import CheckedLoad
from etcd_process import EtcdProcess
from fleet import SLOT, Fleet
from network_namespaces import Cable, Namespace

from crossgate import DeadlineExceeded, Unavailable

pytestmark = pytest.mark.slow

LIMIT_S = 30.0
CUT_S = 8.0
HEALED_S = 8.0  # a pool that was away is asked every five seconds, more or less a quarter
DEADLINE_S = 2.0  # of requests that have nobody else to go to
ROWS = 512  # of 16 bytes: several packets
FAR = f"far/{SLOT}"
OWN = "cpu,capacity=2"


@pytest.fixture
def here():
    with Namespace() as here:
        yield here


@pytest.fixture
def there():
    with Namespace() as there:
        yield there


@pytest.fixture
def cable(here, there):
    return Cable(here, there)


@pytest.fixture
def certificates(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca")
    for name in ("pool.example", "gateway.example"):
        issued = authority.issue_cert(name)
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.crt")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
    return tmp_path


@pytest.fixture
def etcd(here, cable, tmp_path):
    """It listens on the cable too."""
    (tmp_path / "etcd").mkdir()
    etcd = EtcdProcess(tmp_path / "etcd")
    etcd.flags = ["--listen-client-urls", f"http://0.0.0.0:{etcd.port}"]
    here.do(etcd.__enter__)
    yield etcd
    here.do(etcd.end)


@pytest.fixture
def fleet(here, cable, etcd, tmp_path):
    fleet = Fleet(tmp_path, f"etcd://{cable.near.address}:{etcd.port}/crossgate")
    yield fleet
    here.do(fleet.close)


@pytest.fixture
def declare(here, etcd):
    """Write a document as etcd's own clients do."""

    def put(model, document):
        pair = {"key": f"/crossgate/models/{model}", "value": json.dumps(document)}
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in pair.items()}
        here.do(etcd.post, "kv/put", encoded)

    return put


@pytest.fixture
def start(here, there, cable, fleet, declare, certificates, tmp_path, eventually):
    """Start the pool there and the gateway here, which serves `m` on these slots."""

    async def start(*own):
        declare("m", fleet.document(batching={"max_batch_size": ROWS}))
        there.do(
            fleet.pool,
            "far",
            f"--tls-cert={certificates}/pool.example.crt",
            f"--tls-key={certificates}/pool.example.key",
            f"--tls-client-ca={certificates}/ca",
            "--allow-gateway=gateway.example",
            listen=f"grpc://{cable.far.address}:0",
        )
        gateway = here.do(
            fleet.gateway,
            "g",
            f"--worker-ca={certificates}/ca",
            f"--worker-cert={certificates}/gateway.example.crt",
            f"--worker-key={certificates}/gateway.example.key",
            "--worker-identity=pool.example",
            f"--grpc-unix={tmp_path}/grpc.sock",
            slots=own or ("none",),
        )
        await eventually(lambda: gateway.instances("m") == dict.fromkeys([*own, FAR], "ready"), LIMIT_S)
        return gateway

    return start


@pytest.fixture
async def load(tmp_path):
    """Start loads that end with the test. A Unix socket is in both namespaces, and in ours."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**settings):
            made = CheckedLoad(f"unix:{tmp_path}/grpc.sock", "m", callers=6, pause_s=0.01, **settings)
            return await stack.enter_async_context(made)

        yield start


@pytest.fixture
def cut(request, cable):
    """Cut the cable within a context."""

    @contextlib.contextmanager
    def cut():
        (cable.unplug if request.param == "unplugged" else cable.swallow)()
        try:
            yield
        finally:
            (cable.plug if request.param == "unplugged" else cable.let_through)()

    return cut


@pytest.mark.parametrize(
    "cut", [pytest.param("unplugged", marks=pytest.mark.long), "swallowed"], indirect=True
)
async def test_cut_fails_only_what_has_no_other_worker_and_then_only_as_unavailable(start, load, cut, here):
    gateway = await start()
    under_load = await load(timeout_s=DEADLINE_S)
    await under_load.answers(50)
    assert not under_load.failures
    cut_s = time.monotonic()
    with cut():
        await asyncio.sleep(CUT_S)
    healed_s = time.monotonic()
    await under_load.until(lambda: under_load.answered_since(healed_s) > 20, HEALED_S)
    await under_load.answers(100)
    assert not under_load.wrong
    assert under_load.failures
    assert {type(each.error) for each in under_load.failures} <= {Unavailable, DeadlineExceeded}
    assert all(cut_s < each.ended_s < healed_s + HEALED_S for each in under_load.failures)
    assert "quarantined" not in gateway.log_text()
    assert gateway.instances("m") == {FAR: "ready"}
    assert "registered" not in here.do(gateway.get, "/readyz")[1]


@pytest.mark.parametrize(
    "cut", ["unplugged", pytest.param("swallowed", marks=pytest.mark.long)], indirect=True
)
async def test_cut_costs_no_request_that_another_worker_can_run(start, load, cut, eventually):
    gateway = await start(OWN)
    under_load = await load()
    await eventually(lambda: gateway.slots()[FAR].utilisation > 0, LIMIT_S)
    with cut():
        await asyncio.sleep(CUT_S)
    await eventually(lambda: gateway.instances("m") == {OWN: "ready", FAR: "ready"}, LIMIT_S)
    busy = gateway.slots()[FAR].utilisation
    await eventually(lambda: gateway.slots()[FAR].utilisation > busy, LIMIT_S)
    under_load.assert_all_right()
    assert "quarantined" not in gateway.log_text()


async def test_cut_that_outlasts_the_lease_is_healed_too(start, load, cable, eventually):
    gateway = await start()
    under_load = await load(timeout_s=DEADLINE_S)
    await under_load.answers(50)
    cable.swallow()
    await eventually(lambda: FAR not in gateway.slots(), LIMIT_S)
    cable.let_through()
    await eventually(lambda: gateway.instances("m") == {FAR: "ready"}, LIMIT_S)
    await under_load.answers(50)
    assert not under_load.wrong
    assert {type(each.error) for each in under_load.failures} <= {Unavailable, DeadlineExceeded}


async def test_slow_link_that_loses_packets_changes_no_answer(start, load, cable):
    await start()
    cable.throttle("600kbit")
    under_load = await load(rows=ROWS)
    await under_load.until(lambda: cable.lost_packets() > 3 and under_load.answered > 50, LIMIT_S)
    under_load.assert_all_right()

"""Pools without a gateway and gateways without slots, over one etcd, under load whose answers are checked."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import ssl

import numpy as np
import pytest
import trustme
from background_load import BackgroundLoad
from checked_load import CheckedLoad
from fleet import SLOT, Fleet
from store_gateway import Operator, loopback

from gateway.config.keys import worker_key
from gateway.frontend.choice import find_native
from gateway.workerpool.rendezvous import workers_of

pytestmark = [pytest.mark.slow, pytest.mark.long]

A, B = f"a/{SLOT}", f"b/{SLOT}"
LIMIT_S = 20.0  # for what other processes do
MIB = 1 << 20


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    from etcd_process import EtcdProcess

    with EtcdProcess(tmp_path_factory.mktemp("etcd")) as process:
        yield process


@pytest.fixture
def fleet(etcd, tmp_path):
    """Nothing yet, over a prefix of its own."""
    with Fleet(tmp_path, etcd.at(tmp_path.name)) as fleet:
        yield fleet


@pytest.fixture
def operator(fleet):
    return Operator(fleet.url)


@pytest.fixture
async def load():
    """Start loads that end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(gateway, model="m", **settings):
            settings = {"callers": 4, "pause_s": 0.02, **settings}
            return await stack.enter_async_context(CheckedLoad(gateway.grpc, model, **settings))

        yield start


@pytest.fixture(scope="module")
def two_and_two(etcd, tmp_path_factory):
    """Two gateways, of both front ends, that serve `m` on two pools."""
    if reason := find_native().reason:
        if os.environ.get("CROSSGATE_REQUIRE_NATIVE") == "1":
            pytest.fail(f"needs the native front end: {reason}")
        pytest.skip(f"needs the native front end: {reason}")
    with Fleet(tmp_path_factory.mktemp("fleet"), etcd.at("two-and-two")) as fleet:
        asyncio.run(Operator(fleet.url).put(m=fleet.document()))
        fleet.pool("b")
        fleet.gateway("g1", frontend="native")
        fleet.gateway("g2", frontend="grpcio")
        yield fleet


@pytest.fixture
async def pool_a(two_and_two, eventually):
    """The pool that a test may end. Both gateways use it, and the other one too."""
    pool = two_and_two.pool("a")
    await all_up(eventually, *two_and_two.gateways)
    yield pool
    two_and_two.end_pool("a")


async def all_up(eventually, *gateways, slots=(A, B), model="m"):
    """Wait until each gateway has exactly these slots, and the model on all of them."""
    for gateway in gateways:
        await eventually(lambda g=gateway: g.slot_states() == dict.fromkeys(slots, "up"), LIMIT_S)
        await eventually(lambda g=gateway: g.instances(model) == dict.fromkeys(slots, "ready"), LIMIT_S)


async def ended(pool, status=0):
    assert await asyncio.to_thread(pool.process.wait, LIMIT_S) == status


def in_flight(gateway, slot=A):
    return gateway.metric("crossgate_batches_in_flight", worker=slot)


def lease_of(etcd, key):
    """Return the lease of a key, '' where etcd has no such key."""
    found = etcd.post("kv/range", {"key": base64.b64encode(key.encode()).decode()}).get("kvs", ())
    return found[0]["lease"] if found else ""


def at_work(gateway):
    """Return the slots that have run something of late."""
    return {name for name, slot in gateway.slots().items() if slot.utilisation}


async def test_both_gateways_use_both_pools_and_answer_right(two_and_two, pool_a, load, eventually):
    gateways = two_and_two.gateways
    status = [gateway.status() for gateway in gateways]
    assert [each["gateway"]["frontend"] for each in status] == ["native", "grpcio"]
    assert [[(slot["node"], slot["state"]) for slot in each["slots"]] for each in status] == [
        [("b", "up"), ("a", "up")]
    ] * 2
    loads = [await load(gateway) for gateway in gateways]
    for gateway in gateways:
        await eventually(lambda g=gateway: at_work(g) == {A, B}, LIMIT_S)
    for each in loads:
        await each.answers(50)
        each.assert_all_right()


async def test_pool_that_is_killed_with_batches_costs_no_request_and_is_used_again(
    two_and_two, pool_a, load, eventually
):
    gateways = two_and_two.gateways
    before = [gateway.metric("crossgate_reruns_total") for gateway in gateways]
    loads = [await load(gateway, callers=8, pause_s=0.0) for gateway in gateways]
    (worker,) = workers_of(pool_a.workers)
    worker.send(signal.SIGSTOP)  # so that there is something to lose
    for gateway in gateways:
        await eventually(lambda g=gateway: in_flight(g) > 0, LIMIT_S)
    pool_a.process.kill()
    worker.send(signal.SIGCONT)
    worker.close()
    await ended(pool_a, -signal.SIGKILL)
    for gateway, reruns in zip(gateways, before, strict=True):
        await eventually(lambda g=gateway, r=reruns: g.metric("crossgate_reruns_total") > r, LIMIT_S)
    for each in loads:
        await each.answers(30)
    two_and_two.pool("a", listen=f"grpc://127.0.0.1:{pool_a.port}")
    await all_up(eventually, *gateways)
    for gateway in gateways:
        busy = gateway.slots()[A].utilisation
        await eventually(lambda g=gateway, b=busy: g.slots()[A].utilisation > b, LIMIT_S)
    for each in loads:
        each.assert_all_right()
    assert [gateway.ready_versions("m") for gateway in gateways] == [["1"], ["1"]]


async def test_worker_that_is_killed_costs_no_request_of_either_gateway(
    two_and_two, pool_a, load, eventually
):
    gateways = two_and_two.gateways
    loads = [await load(gateway) for gateway in gateways]
    (worker,) = workers_of(pool_a.workers)
    pid = gateways[0].slots()[A].pid
    worker.send(signal.SIGKILL)
    worker.close()
    for gateway in gateways:
        await eventually(lambda g=gateway: g.slots()[A].pid != pid, LIMIT_S)
    await all_up(eventually, *gateways)
    for each in loads:
        await each.answers(30)
        each.assert_all_right()


async def test_pool_that_is_told_to_end_costs_no_request(two_and_two, pool_a, load, eventually):
    gateways = two_and_two.gateways
    loads = [await load(gateway) for gateway in gateways]
    for each in loads:
        await each.answers(20)
    pool_a.send(signal.SIGTERM)
    await ended(pool_a)
    await all_up(eventually, *gateways, slots=[B])
    for each in loads:
        await each.answers(30)
        each.assert_all_right()


async def test_registration_that_vanishes_stops_no_healthy_link_and_comes_back(
    two_and_two, pool_a, load, etcd, eventually
):
    gateways = two_and_two.gateways
    loads = [await load(gateway) for gateway in gateways]
    key = f"/two-and-two/{worker_key('a', SLOT)}"
    pids = [gateway.slots()[A].pid for gateway in gateways]
    losses = [gateway.log_text().count("out of reach") for gateway in gateways]
    lease = lease_of(etcd, key)
    etcd.post("lease/revoke", {"ID": lease})
    await eventually(lambda: lease_of(etcd, key) not in ("", lease), LIMIT_S)
    for each in loads:
        await each.answers(50)
        each.assert_all_right()
    assert [gateway.slot_states() for gateway in gateways] == [{A: "up", B: "up"}] * 2
    assert [gateway.slots()[A].pid for gateway in gateways] == pids
    assert [gateway.log_text().count("out of reach") for gateway in gateways] == losses


async def test_credits_are_divided_and_those_of_a_killed_gateway_go_to_the_other(
    fleet, operator, eventually, tmp_path
):
    unbatched = {"max_batch_size": 1, "batchable": False}
    slow = loopback(tmp_path / "m", options={"delay_us": 50_000}, batching=unbatched)
    slow["instances"][0]["count"] = 2
    await operator.put(slow=slow)
    fleet.pool("a")
    first, second = fleet.gateway("g1"), fleet.gateway("g2")
    await all_up(eventually, first, second, slots=[A], model="slow")
    async with BackgroundLoad(first, "slow", callers=12) as one, BackgroundLoad(second, "slow", callers=12):
        for gateway in (first, second):  # what one held too many of goes back with its answers
            await eventually(lambda g=gateway: in_flight(g) == 2, LIMIT_S)
        assert {in_flight(gateway) for gateway in (first, second) for _ in range(20)} <= {1.0, 2.0}
        second.process.kill()
        await eventually(lambda: in_flight(first) == 4, LIMIT_S)
    assert one.answered
    assert not one.failures


async def test_model_moves_live_between_own_slots_and_a_pool(fleet, operator, load, eventually):
    own = "cpu,capacity=2"
    await operator.put(m=fleet.document(node="here"))
    gateway = fleet.gateway("g", "--node=here", slots=[own])
    fleet.pool("b")
    await eventually(lambda: B in gateway.slots(), LIMIT_S)
    assert gateway.instances("m") == {own: "ready"}
    under_load = await load(gateway)
    for node, slot in (("b", B), ("here", own), ("*", None), ("b", B)):
        await operator.put(m=fleet.document(node=node))
        expected = dict.fromkeys([slot] if slot else [own, B], "ready")
        await eventually(lambda e=expected: gateway.instances("m") == e, LIMIT_S)
        await under_load.answers(30)
    under_load.assert_all_right()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Return a folder with three authorities, and certificates of each for each name."""
    folder = tmp_path_factory.mktemp("tls")
    for authority in ("ours", "next", "other"):
        made = trustme.CA()
        made.cert_pem.write_to_path(folder / f"{authority}.ca")
        for name in ("pool.example", "gateway.example", "stranger.example"):
            issued = made.issue_cert(name)
            issued.cert_chain_pems[0].write_to_path(folder / f"{authority}.{name}.crt")
            issued.private_key_pem.write_to_path(folder / f"{authority}.{name}.key")
    return folder


def pool_tls(folder, *, by="ours", name="pool.example"):
    return (
        f"--tls-cert={folder}/{by}.{name}.crt",
        f"--tls-key={folder}/{by}.{name}.key",
        f"--tls-client-ca={folder}/ours.ca",
        "--allow-gateway=gateway.example",
    )


def gateway_tls(folder, *, ca="ours", by="ours", name="gateway.example"):
    return (
        f"--worker-ca={folder}/{ca}.ca",
        f"--worker-cert={folder}/{by}.{name}.crt",
        f"--worker-key={folder}/{by}.{name}.key",
        "--worker-identity=pool.example",
    )


async def test_only_pools_with_an_allowed_certificate_are_used(
    fleet, operator, load, certificates, eventually, etcd
):
    good = fleet.pool("a", *pool_tls(certificates))
    fleet.pool("stranger", *pool_tls(certificates, name="stranger.example"))
    fleet.pool("other", *pool_tls(certificates, by="other"))
    plain = fleet.pool("plain")
    registered = await etcd.everything(fleet.url.rpartition("/")[2])
    claims = {  # {node: what it says falsely of itself}
        "tlsless": {"address": f"grpc://127.0.0.1:{good.port}", "identity": ""},
        "liar": {"address": f"grpc://127.0.0.1:{plain.port}", "identity": "pool.example"},
    }
    truth = json.loads(registered[worker_key("a", SLOT)])
    await operator.write(
        {worker_key(node, SLOT): {**truth, "node": node, **claim} for node, claim in claims.items()}
    )
    await operator.put(m=fleet.document())
    gateway = fleet.gateway("g", *gateway_tls(certificates))
    await eventually(lambda: len(gateway.readiness()["notes"]) == 5, LIMIT_S)
    await all_up(eventually, gateway, slots=[A])
    notes = gateway.notes()
    for node, problem in {
        "stranger": "its identity stranger.example is none of those that are allowed",
        "other": "CERTIFICATE_VERIFY_FAILED",
        "plain": "it has no TLS",
        "tlsless": "it has no TLS",
        "liar": "WRONG_VERSION_NUMBER",
    }.items():
        (note,) = [each for each in notes.splitlines() if each.startswith(worker_key(node, SLOT))]
        assert problem in note
        assert f"slot {node}/{SLOT}: " in gateway.log_text()
    under_load = await load(gateway)
    await under_load.answers(20)
    under_load.assert_all_right()


@pytest.mark.parametrize(
    ("gateway_is", "problem"),
    [
        ({"name": "stranger.example"}, "not allowed here: stranger.example"),
        ({"by": "other"}, "grpc://127.0.0.1"),
        ({"ca": "other"}, "CERTIFICATE_VERIFY_FAILED"),
        (None, "this gateway has no CA"),
    ],
    ids=["another name", "by another CA", "with another CA", "without TLS"],
)
async def test_gateway_that_a_pool_does_not_let_in_uses_nothing_of_it(
    fleet, certificates, eventually, gateway_is, problem
):
    fleet.pool("a", *pool_tls(certificates))
    options = () if gateway_is is None else gateway_tls(certificates, **gateway_is)
    gateway = fleet.gateway("g", *options)
    await eventually(lambda: problem in gateway.notes(), LIMIT_S)
    assert gateway.slots() == {}
    assert f"slot {A}: " in gateway.log_text()


async def test_replaced_certificates_are_taken_up_by_the_next_connection(
    fleet, operator, load, certificates, eventually, tmp_path
):
    folder = tmp_path / "tls"
    shutil.copytree(certificates, folder)
    await operator.put(m=fleet.document())
    pool = fleet.pool("a", *pool_tls(folder))
    gateway = fleet.gateway("g", *gateway_tls(folder))
    await all_up(eventually, gateway, slots=[A])
    for file in folder.glob("next.*"):
        file.replace(folder / file.name.replace("next.", "ours."))
    under_load = await load(gateway)
    await under_load.answers(20)
    under_load.assert_all_right()
    pid = gateway.slots()[A].pid
    (worker,) = workers_of(pool.workers)
    worker.send(signal.SIGKILL)
    worker.close()
    await eventually(lambda: gateway.slots()[A].pid != pid, LIMIT_S)
    await all_up(eventually, gateway, slots=[A])
    await under_load.answers(20)
    under_load.assert_all_right()
    presented = ssl.get_server_certificate(("127.0.0.1", pool.port))
    assert presented == (certificates / "next.pool.example.crt").read_text()


async def test_etcd_that_is_away_stops_nothing_and_pools_that_start_meanwhile_are_found(
    load, eventually, tmp_path
):
    from etcd_process import EtcdProcess

    (tmp_path / "etcd").mkdir()
    with EtcdProcess(tmp_path / "etcd") as own, Fleet(tmp_path, own.url) as fleet:
        await Operator(own.url).put(m=fleet.document())
        a = fleet.pool("a")
        gateway = fleet.gateway("g")
        await all_up(eventually, gateway, slots=[A])
        under_load = await load(gateway)
        await own.stop()
        await under_load.answers(50)
        fleet.pool("b")
        a.process.kill()
        await ended(a, -signal.SIGKILL)
        fleet.pool("a", listen=f"grpc://127.0.0.1:{a.port}")
        await all_up(eventually, gateway, slots=[A])  # its place is known
        await own.start()
        await all_up(eventually, gateway)
        await under_load.answers(50)
        under_load.assert_all_right()
        assert gateway.readiness()["notes"] == []


async def test_models_on_demand_share_the_memory_of_a_slot_elsewhere(fleet, operator, eventually):
    names = ["one", "two", "three", "four"]  # the file of each has 16 MiB
    load = {"mode": "on_demand"}
    await operator.put(**{name: fleet.document(factor=float(n), load=load) for n, name in enumerate(names)})
    slot = f"{SLOT},memory=60MiB"
    fleet.pool("a", slots=[slot])
    gateway = fleet.gateway("g")
    await eventually(lambda: f"a/{slot}" in gateway.slots(), LIMIT_S)
    x = np.arange(4, dtype=np.float32)[np.newaxis]
    async with gateway.async_client() as client:
        for _ in range(2):
            for n, name in enumerate(names):
                answer = (await client.infer(name, {"x": x}))["y"]
                np.testing.assert_array_equal(answer, x * n + 1)
                assert gateway.memory(names)[name] >= 16 * MIB
    assert f"makes room on a/{slot} for model" in gateway.log_text()

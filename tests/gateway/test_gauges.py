"""What is read at scrapes, of a reconciler and a data plane over fake workers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "lifecycle"))

from rig import Rig, model, slot

from gateway.frontend.seam import Traffic
from gateway.gauges import read_gauges, read_process, read_triton
from gateway.lifecycle.following import SourceState
from gateway.telemetry.collection import Collection
from gateway.telemetry.trace import SpanCounts


class FakeFrontend:
    def traffic(self):
        return Traffic(3, 10, 1, 100, 200)


class FrontendThatDoesNotTell:
    def traffic(self):
        return None


def gauges(rig, frontend=None):
    """{(series name, labels): value} of what was registered"""
    read_gauges(
        rig.accounts,
        rig.reconciler,
        rig.dataplane,
        rig.pool,
        frontend or FakeFrontend(),
        lambda: SourceState("here", away_s=1.5),
    )
    read_process(
        rig.accounts,
        version="1.2",
        front_end="native",
        draining=lambda: rig.admission.draining,
        rejected=lambda: 4,
        spans=lambda: SpanCounts(5, 6, 7),
    )
    read_triton(rig.accounts, rig.reconciler)
    found = {}
    registered = rig.accounts.readings
    for part in Collection(rig.accounts).slices():
        if part.series.name in registered or part.series.name == "crossgate_scrape_errors_total":
            for point in part.points:
                assert (part.series.name, *point.labels) not in found, "a series is there twice"
                found[part.series.name, *point.labels] = point.value
    return found


async def test_what_waits_and_what_may_wait_is_told_by_model_and_by_slot():
    async with Rig(slot("cpu", capacity=1)) as rig:
        rig.want(model("a", batching={"max_queue_size": 7, "max_batch_size": 1}), model("b"))
        await rig.settle()
        for _ in range(5):
            rig.call("a")
        found = gauges(rig)
        in_flight = found["crossgate_batches_in_flight", "cpu"]
        waiting = 5 - in_flight
        assert in_flight == 2
        assert found["crossgate_queue_depth", "a"] == waiting
        assert found["crossgate_queue_depth", "b"] == 0
        assert found["crossgate_queue_limit", "a"] == 7
        assert found["crossgate_worker_queue_depth", "cpu"] == waiting
        assert found["nv_inference_pending_request_count", "a", "1"] == waiting
        assert found["crossgate_worker_credits", "cpu"] == 0
        await rig.settle()
        rig.dataplane.slots["cpu"].busy_ns = 2_500_000_000
        found = gauges(rig)
        assert found["crossgate_worker_queue_depth", "cpu"] == 0
        assert found["crossgate_worker_busy_seconds_total", "cpu", "cpu"] == 2.5
        assert found["crossgate_worker_capacity", "cpu"] == 1
        assert not [key for key in found if key[0] == "crossgate_scrape_errors_total"]


async def test_version_is_ready_when_it_takes_traffic():
    async with Rig(slot("cpu")) as rig:
        gate = rig.link.gates["a"] = asyncio.Event()
        rig.want(model("a"))
        await rig.step()
        assert gauges(rig)["crossgate_model_ready", "a", "1"] == 0
        gate.set()
        await rig.settle()
        assert gauges(rig)["crossgate_model_ready", "a", "1"] == 1


async def test_a_lost_worker_is_down_until_it_is_back():
    async with Rig(slot("cpu")) as rig:
        rig.want(model("a"))
        await rig.settle()
        assert gauges(rig)["crossgate_worker_up", "cpu", "cpu"] == 1
        rig.worker_down()
        await rig.settle()
        found = gauges(rig)
        assert found["crossgate_worker_up", "cpu", "cpu"] == 0
        assert found["crossgate_worker_credits", "cpu"] == 0
        rig.worker_up()
        assert gauges(rig)["crossgate_worker_up", "cpu", "cpu"] == 1


async def test_version_that_is_loaded_from_two_files_at_once_is_one_series():
    async with Rig(slot("cpu")) as rig:
        rig.want(model("a"))
        await rig.settle()
        gate = rig.link.gates["a"] = asyncio.Event()
        changed = model("a", revision=2, instances=[{"runtime": "loopback", "device": "cpu", "count": 2}])
        rig.want(changed)
        await rig.step()
        assert len(rig.reconciler.served["a"].records) == 2
        found = gauges(rig)  # which fails on a series that is there twice
        assert found["crossgate_model_ready", "a", "1"] == 1
        gate.set()
        await rig.settle()


async def test_process_says_what_it_is_and_whether_it_drains():
    async with Rig() as rig:
        found = gauges(rig)
        assert found["crossgate_build_info", "1.2", "native"] == 1
        assert (found["crossgate_draining",], found["crossgate_config_rejected_total",]) == (0, 4)
        assert found["crossgate_connections_total", "refused"] == 1
        assert [found["crossgate_trace_spans_total", r] for r in ("exported", "dropped", "failed")] == [
            5,
            6,
            7,
        ]
        assert found["crossgate_config_away_seconds",] == 1.5
        rig.admission.draining = True
        assert gauges(rig)["crossgate_draining",] == 1


async def test_front_end_that_does_not_tell_has_no_series_of_connections():
    async with Rig() as rig:
        found = gauges(rig, FrontendThatDoesNotTell())
        assert not [key for key in found if "connections" in key[0] or "held" in key[0]]

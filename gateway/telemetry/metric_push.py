"""Metrics pushed to an OpenTelemetry collector, as the standard variables say.

Guarantees: values are read on the event loop in slices of about a millisecond, between which requests have
their turn; encoding and sending happen in a thread. One part of a round is in memory at a time, whatever the
collector does: a part that cannot be sent ends its round, which is counted, and the next one brings
everything up to date, because all values are cumulative. The end is bounded in time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Final, Protocol

from gateway.telemetry.collector import first
from gateway.telemetry.series import Sample
from gateway.telemetry.side_thread import SideThread
from gateway.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource

    from gateway.telemetry.collection import Collection

MAX_POINTS: Final = 1000  # in one message: a fraction of the 4 MiB that collectors take
_INTERVAL_MS: Final = 60_000
_LAST_ROUND_S: Final = 2.0
_ABORT_S: Final = 0.5

_log = logging.getLogger(__name__)


class MetricExportInvalid(ValueError):
    """The environment asks for metrics in a way that is not there."""

    def __init__(self, variable: str, value: str, instead: str) -> None:
        super().__init__(f"{variable}={value}: {instead}")
        self.variable = variable
        self.value = value


class MetricSender(Protocol):
    """Sends one part; called in a thread, may block."""

    def send(self, data: MetricsData) -> bool:
        """Whether the collector has taken it."""
        ...

    def shutdown(self) -> None:
        """Give up what is being sent."""
        ...


class MetricPush:
    """`run` pushes until cancelled; then `finish`."""

    def __init__(
        self, collection: Collection, resource: Resource, sender: MetricSender, interval_s: float
    ) -> None:
        self.exported = 0  # rounds
        self.failed = 0
        self._collection = collection
        self._resource = resource
        self._sender = sender
        self._interval_s = interval_s
        self._thread = SideThread("metric-push")

    @staticmethod
    def from_environment(
        collection: Collection, *, environ: Mapping[str, str] | None = None, service_version: str = ""
    ) -> MetricPush | None:
        """None unless OTEL_METRICS_EXPORTER names `otlp`; `prometheus` is always there.

        Read here: OTEL_SDK_DISABLED, OTEL_METRICS_EXPORTER, OTEL_METRIC_EXPORT_INTERVAL and
        OTEL_EXPORTER_OTLP_[METRICS_]PROTOCOL. The SDK reads the rest itself, from the process's environment:
        endpoint, headers, certificates, compression, timeout.

        Raises:
            MetricExportInvalid
        """
        environ = os.environ if environ is None else environ
        variable, exporters = first(environ, "OTEL_METRICS_EXPORTER")
        names = {name.strip() for name in exporters.split(",") if name.strip()}
        unknown = sorted(names - {"otlp", "prometheus", "none"})
        if unknown:
            raise MetricExportInvalid(
                variable, exporters, f"{unknown[0]!r} is none of otlp, prometheus and none"
            )
        if "otlp" not in names or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return None
        sender = _sender(environ)

        from gateway.telemetry.spans import resource_of  # the SDK takes 0.2 s to import

        return MetricPush(collection, resource_of(service_version), sender, _interval_s(environ))

    async def run(self) -> None:
        """Push every interval, for the first time after one."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            due_s = max(due_s + self._interval_s, loop.time())
            await asyncio.sleep(due_s - loop.time())
            await self.push()

    async def push(self) -> bool:
        """One round; whether the collector has taken all of it."""
        taken = await self._push_parts()
        if taken:
            self.exported += 1
        else:
            self.failed += 1
        return taken

    async def finish(self, timeout_s: float = _LAST_ROUND_S) -> None:
        """Push once more, within `timeout_s`, and give up whatever is under way."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.push()
        except TimeoutError:
            self.failed += 1
        closing = SideThread("metric-push-end")
        try:
            async with asyncio.timeout(_ABORT_S):
                await closing.call(self._sender.shutdown)
        except TimeoutError:
            pass  # the thread ends with the process
        finally:
            closing.close()
            self._thread.close()

    def samples(self) -> list[Sample]:
        """For `series.METRIC_PUSHES`."""
        return [Sample(("exported",), self.exported), Sample(("failed",), self.failed)]

    async def _push_parts(self) -> bool:
        from gateway.telemetry.otlp_points import OtlpBatch  # as above

        collection, turn = self._collection, Turn()
        batch = OtlpBatch(self._resource, time.time_ns(), collection.began_ns)
        for part in collection.slices():
            batch.add(part)
            if batch.size >= MAX_POINTS and not await self._send(batch.take()):
                return False
            await turn.give_way()
        return await self._send(batch.take()) if batch.size else True

    async def _send(self, data: MetricsData) -> bool:
        try:
            return await self._thread.call(lambda: self._sender.send(data))
        except Exception:
            _log.exception("cannot push metrics")
            return False


def _sender(environ: Mapping[str, str]) -> MetricSender:
    variable, protocol = first(environ, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol in ("", "grpc"):
        from gateway.telemetry.metric_exporters import GrpcSender

        return GrpcSender()
    if protocol == "http/protobuf":
        from gateway.telemetry.metric_exporters import HttpSender

        return HttpSender()
    raise MetricExportInvalid(
        variable, protocol, "metrics are pushed by grpc or http/protobuf: set it to one"
    )


def _interval_s(environ: Mapping[str, str]) -> float:
    """What is not understood is ignored with a warning, as the specification demands."""
    preference = first(environ, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE")[1].lower()
    if preference not in ("", "cumulative"):
        _log.warning("metrics are pushed as cumulative values, not as %s", preference)
    variable, text = first(environ, "OTEL_METRIC_EXPORT_INTERVAL")
    if text and not (text.isdecimal() and 0 < int(text) < 2**31):
        _log.warning("%s=%s is no number of milliseconds; metrics are pushed every minute", variable, text)
        text = ""
    return int(text or _INTERVAL_MS) / 1000

"""OTLP receivers of metrics on free ports of this machine, over gRPC and over HTTP."""

from __future__ import annotations

import gzip
import http.server
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as service_grpc
from otlp_receiver import values


class Received:
    """`requests` are what has come, with their `headers`; while `answering` is clear nothing is answered."""

    def __init__(self):
        self._lock = threading.Lock()
        self.requests = []
        self.headers = []
        self.arrived = threading.Semaphore(0)
        self.answering = threading.Event()
        self.answering.set()

    def add(self, request, headers):
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
        self.arrived.release()
        self.answering.wait(30)
        return service.ExportMetricsServiceResponse()

    @property
    def resources(self):
        return [values(each.resource.attributes) for r in self.requests for each in r.resource_metrics]

    @property
    def metrics(self):
        """{name: [metric of each request]}"""
        found = {}
        for request in self.requests:
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        found.setdefault(metric.name, []).append(metric)
        return found


class GrpcMetricReceiver(Received, service_grpc.MetricsServiceServicer):
    protocol = "grpc"

    def Export(self, request, context):
        return self.add(request, dict(context.invocation_metadata()))

    def __enter__(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        service_grpc.add_MetricsServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *_):
        self.answering.set()
        self._server.stop(None).wait(10)


class HttpMetricReceiver(Received):
    """Takes POST /v1/metrics."""

    protocol = "http/protobuf"

    def __enter__(self):
        receiver = self

        class Endpoint(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/metrics"
                request = service.ExportMetricsServiceRequest.FromString(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver.add(request, headers).SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.answering.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

"""OTLP receivers of traces on free ports of this machine, over gRPC and over HTTP."""

from __future__ import annotations

import gzip
import http.server
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc


class Received:
    """What has come: `requests` whole, and with what headers. While `answering` is clear nothing is
    answered."""

    def __init__(self):
        self._lock = threading.Lock()
        self.requests = []
        self.headers = []  # {name: value} of each request
        self.arrived = threading.Semaphore(0)
        self.answering = threading.Event()
        self.answering.set()

    def add(self, request, headers):
        with self._lock:
            self.requests.append(request)
            self.headers.append(headers)
        self.arrived.release()
        self.answering.wait(30)
        return service.ExportTraceServiceResponse()

    @property
    def resources(self):
        """The attributes of each request's resource"""
        with self._lock:
            return [
                values(resource_spans.resource.attributes)
                for request in self.requests
                for resource_spans in request.resource_spans
            ]

    @property
    def spans(self):
        with self._lock:
            return [
                span
                for request in self.requests
                for resource_spans in request.resource_spans
                for scope_spans in resource_spans.scope_spans
                for span in scope_spans.spans
            ]

    def named(self, name):
        return [span for span in self.spans if span.name == name]


class GrpcReceiver(Received, service_grpc.TraceServiceServicer):
    protocol = "grpc"

    def Export(self, request, context):
        return self.add(request, dict(context.invocation_metadata()))

    def __enter__(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        service_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.base = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self.endpoint = self.base
        self._server.start()
        return self

    def __exit__(self, *_):
        self.answering.set()
        self._server.stop(None).wait(10)


class HttpReceiver(Received):
    """Takes POST /v1/traces; `paths` is what was asked for."""

    protocol = "http/protobuf"

    def __init__(self):
        super().__init__()
        self.paths = []
        self.status = 200

    def __enter__(self):
        receiver = self

        class Endpoint(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.paths.append(self.path)
                request = service.ExportTraceServiceRequest.FromString(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver.add(request, headers).SerializeToString()
                self.send_response(receiver.status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.base = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.endpoint = f"{self.base}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.answering.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


RECEIVERS = {receiver.protocol: receiver for receiver in (GrpcReceiver, HttpReceiver)}


def values(attributes):
    """{key: value} of OTLP attributes"""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}

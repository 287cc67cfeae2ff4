"""The RPCs that are not inference, as functions from bytes to bytes, for every front end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import DecodeError, Message

from gateway.errors import NotFound, NotReady
from gateway.frontend.codec import MalformedRequest
from gateway.frontend.health import HealthServicer
from gateway.frontend.reflection import reflection_streams
from gateway.frontend.seam import Servicers, UnaryServicer
from gateway.lifecycle.record import VersionState
from gateway.routing.table import ModelAsleep
from protos import inference_pb2 as pb
from protos import model_config_pb2 as config_pb

if TYPE_CHECKING:
    from gateway.admission.access import Access
    from gateway.lifecycle.catalog import Catalog
    from gateway.lifecycle.repository import Repository
    from gateway.telemetry.accounts import Accounts
    from gateway.telemetry.statistics import Duration, VersionStatistics
    from wire.frames import TensorSpec

_SERVICE = "/inference.GRPCInferenceService/"
EXTENSIONS = (
    "model_configuration",
    "statistics",
    "model_repository",
    "schedule_policy",
    "binary_tensor_data",
    "parameters",
)
_TYPES = {"BYTES": "TYPE_STRING"}


AboutModel = TypeVar("AboutModel", pb.ModelMetadataRequest, pb.ModelConfigRequest)
Answer = Message | Coroutine[Any, Any, Message]
Servicer = Callable[[Any, Mapping[str, str]], Answer]


def build_servicers(
    catalog: Catalog, accounts: Accounts, repository: Callable[[], Repository], access: Access
) -> Servicers:
    """Return all RPCs but ModelInfer and ModelStreamInfer. `repository` is asked for at each call. What says
    only whether the server lives and is ready is for everybody.
    """
    inference = InferenceServicer(catalog, accounts, repository, access)
    health = HealthServicer(catalog)

    def about(servicer: Callable[[Any], Answer]) -> Servicer:
        def serve(request: Any, metadata: Mapping[str, str]) -> Answer:
            access.check(metadata, request.name, "read")
            return servicer(request)

        return serve

    def manage(servicer: Callable[[Any], Answer]) -> Servicer:
        def serve(request: Any, metadata: Mapping[str, str]) -> Answer:
            access.check(metadata, request.model_name, "manage")
            return servicer(request)

        return serve

    servicers: dict[str, tuple[type[Message], Servicer]] = {
        "ServerLive": (pb.ServerLiveRequest, _open(inference.server_live)),
        "ServerReady": (pb.ServerReadyRequest, _open(inference.server_ready)),
        "ServerMetadata": (pb.ServerMetadataRequest, _open(inference.server_metadata)),
        "ModelReady": (pb.ModelReadyRequest, about(inference.model_ready)),
        "ModelMetadata": (pb.ModelMetadataRequest, about(inference.awaken(inference.model_metadata))),
        "ModelConfig": (pb.ModelConfigRequest, about(inference.awaken(inference.model_config))),
        "ModelStatistics": (pb.ModelStatisticsRequest, inference.model_statistics),
        "RepositoryIndex": (pb.RepositoryIndexRequest, inference.repository_index),
        "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, manage(inference.load)),
        "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, manage(inference.unload)),
    }
    unary: dict[str, UnaryServicer] = {
        f"{_SERVICE}{method}": _typed(type_, servicer) for method, (type_, servicer) in servicers.items()
    }
    unary["/grpc.health.v1.Health/Check"] = lambda message, _: health.check(message)
    return Servicers(unary, {"/grpc.health.v1.Health/Watch": health.watch, **reflection_streams()})


def _open(servicer: Callable[[Any], Answer]) -> Servicer:
    """Have everybody answered."""
    return lambda request, _: servicer(request)


def _typed(type_: type[Message], servicer: Servicer) -> UnaryServicer:
    def serve(message: bytes, metadata: Mapping[str, str]) -> bytes | Coroutine[Any, Any, bytes]:
        try:
            request = type_.FromString(message)
        except DecodeError as error:
            raise MalformedRequest(f"the message is not a {type_.__name__}") from error
        answer = servicer(request, metadata)
        return answer.SerializeToString() if isinstance(answer, Message) else _serialized(answer)

    return serve


async def _serialized(answer: Coroutine[Any, Any, Message]) -> bytes:
    return (await answer).SerializeToString()


class InferenceServicer:
    """Health, metadata, configuration, statistics and index of the Open Inference Protocol and Triton's
    extensions.
    """

    def __init__(
        self, catalog: Catalog, accounts: Accounts, repository: Callable[[], Repository], access: Access
    ) -> None:
        self._catalog = catalog
        self._accounts = accounts
        self._repository = repository
        self._access = access

    def awaken(
        self, servicer: Callable[[AboutModel], Message]
    ) -> Callable[[AboutModel], Message | Coroutine[Any, Any, Message]]:
        """Have a model that is loaded on demand loaded before it is asked about."""

        async def later(request: AboutModel) -> Message:
            await self._catalog.awake(request.name, request.version)
            return servicer(request)

        def serve(request: AboutModel) -> Message | Coroutine[Any, Any, Message]:
            try:
                return servicer(request)
            except ModelAsleep:
                return later(request)

        return serve

    def server_live(self, _: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._catalog.ready()[0])

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """A model or version that is known but not ready is an answer, not an error."""
        statuses = self._catalog.versions(request.name)
        if not request.version:
            return pb.ModelReadyResponse(ready=any(s.takes_requests for s in statuses))
        known = {s.version: s.takes_requests for s in statuses}
        if request.version in known:
            return pb.ModelReadyResponse(ready=known[request.version])
        try:
            self._catalog.servable(request.name, request.version)  # a label, or unknown
        except ModelAsleep:
            return pb.ModelReadyResponse(ready=True)
        except NotReady:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    def server_metadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(
            name="crossgate", version=package_version("crossgate"), extensions=EXTENSIONS
        )

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        servable = self._catalog.servable(request.name, request.version)
        response = pb.ModelMetadataResponse(name=request.name, platform=servable.signature.platform)
        response.versions.extend(
            s.version for s in self._catalog.versions(request.name) if s.state == VersionState.READY.value
        )
        for spec in servable.signature.inputs:
            response.inputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        for spec in servable.signature.outputs:
            response.outputs.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        return response

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """The configuration in Triton's terms: `max_batch_size` 0 is a model that is not batched, and its
        dims have all axes.
        """
        servable = self._catalog.servable(request.name, request.version)
        batched = servable.batchable
        platform = servable.signature.platform
        config = config_pb.ModelConfig(
            name=request.name,
            platform=platform,
            backend=platform.partition("_")[0],
            max_batch_size=servable.max_rows if batched else 0,
        )
        for spec in servable.signature.inputs:
            config.input.add(
                name=spec.name, data_type=_data_type(spec), dims=spec.shape[1:] if batched else spec.shape
            )
        for spec in servable.signature.outputs:
            config.output.add(
                name=spec.name, data_type=_data_type(spec), dims=spec.shape[1:] if batched else spec.shape
            )
        for hosting in servable.hostings:
            accelerator = hosting.slot.device.startswith(("cuda", "openvino:GPU", "openvino:NPU"))
            kind = (
                config_pb.ModelInstanceGroup.KIND_GPU
                if accelerator
                else config_pb.ModelInstanceGroup.KIND_CPU
            )
            config.instance_group.add(
                name=f"{request.name}@{hosting.slot.name}", kind=kind, count=hosting.count
            )
        if batched:
            config.dynamic_batching.max_queue_delay_microseconds = servable.max_delay_ns // 1000
            config.dynamic_batching.default_queue_policy.max_queue_size = servable.policy.max_queue_size
            config.dynamic_batching.priority_levels = servable.policy.priorities.levels
            config.dynamic_batching.default_priority_level = servable.policy.priorities.default
        return pb.ModelConfigResponse(config=config)

    def model_statistics(
        self, request: pb.ModelStatisticsRequest, metadata: Mapping[str, str]
    ) -> pb.ModelStatisticsResponse:
        """Without a name, of the models that the caller may read."""
        response = pb.ModelStatisticsResponse()
        version = request.version
        if request.name:
            self._access.check(metadata, request.name, "read")
            versions = [s.version for s in self._catalog.versions(request.name) if s.version]
            if version and version not in versions:
                version = self._catalog.servable(request.name, version).version  # a label, or unknown
        for account in self._accounts:
            if not account.model or not account.version:
                continue
            if request.name not in ("", account.model) or version not in ("", account.version):
                continue
            if self._access.refusal(metadata, account.model, "read") is None:
                self._add_statistics(response, account.statistics())
        return response

    def _add_statistics(self, response: pb.ModelStatisticsResponse, statistics: VersionStatistics) -> None:
        target = response.model_stats.add(
            name=statistics.model,
            version=statistics.version,
            last_inference=statistics.last_inference_ms,
            inference_count=statistics.inference_count,
            execution_count=statistics.execution_count,
        )
        for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
            _copy(getattr(statistics.inference_stats, name), getattr(target.inference_stats, name))
        for batch in statistics.batch_stats:
            row = target.batch_stats.add(batch_size=batch.batch_size)
            for name in ("compute_input", "compute_infer", "compute_output"):
                _copy(getattr(batch, name), getattr(row, name))
        for device, size_bytes in self._catalog.memory_bytes(statistics.model, statistics.version).items():
            number = device.rpartition(":")[2]
            kind = "GPU" if device.startswith(("cuda", "openvino:GPU")) else "CPU"
            target.memory_usage.add(
                type=kind, id=int(number) if kind == "GPU" and number.isdecimal() else 0, byte_size=size_bytes
            )

    async def load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        _check_repository(request.repository_name)
        await self._repository().load(request.model_name, sorted(request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """`unload_dependents`, the one parameter, says nothing here: no model depends on another."""
        _check_repository(request.repository_name)
        await self._repository().unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    def repository_index(
        self, request: pb.RepositoryIndexRequest, metadata: Mapping[str, str]
    ) -> pb.RepositoryIndexResponse:
        """Of the models that the caller may read."""
        _check_repository(request.repository_name)
        response = pb.RepositoryIndexResponse()
        for model in self._catalog.models():
            if self._access.refusal(metadata, model, "read") is not None:
                continue
            for status in self._catalog.versions(model):
                if not request.ready or status.state == VersionState.READY.value:
                    response.models.add(
                        name=model, version=status.version, state=status.state, reason=status.reason
                    )
        return response


class RepositoryUnknown(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"unknown repository {name!r}; this gateway has one, without a name")


def _check_repository(name: str) -> None:
    """Raises RepositoryUnknown."""
    if name:
        raise RepositoryUnknown(name)


def _data_type(spec: TensorSpec) -> int:
    return config_pb.DataType.Value(_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}"))


def _copy(duration: Duration, target: pb.StatisticDuration) -> None:
    target.count, target.ns = duration.count, duration.ns

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ("models", "limit", "page")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedScalarFieldContainer[str]
    limit: int
    page: str
    def __init__(self, models: _Optional[_Iterable[str]] = ..., limit: _Optional[int] = ..., page: _Optional[str] = ...) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ("models", "limit", "interval_ms")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedScalarFieldContainer[str]
    limit: int
    interval_ms: int
    def __init__(self, models: _Optional[_Iterable[str]] = ..., limit: _Optional[int] = ..., interval_ms: _Optional[int] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("gateway", "configuration", "slots", "models", "models_matching", "next_page", "unmatched")
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MODELS_MATCHING_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_FIELD_NUMBER: _ClassVar[int]
    UNMATCHED_FIELD_NUMBER: _ClassVar[int]
    gateway: GatewayStatus
    configuration: ConfigurationStatus
    slots: _containers.RepeatedCompositeFieldContainer[SlotStatus]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    models_matching: int
    next_page: str
    unmatched: _containers.RepeatedCompositeFieldContainer[Unmatched]
    def __init__(self, gateway: _Optional[_Union[GatewayStatus, _Mapping]] = ..., configuration: _Optional[_Union[ConfigurationStatus, _Mapping]] = ..., slots: _Optional[_Iterable[_Union[SlotStatus, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ..., models_matching: _Optional[int] = ..., next_page: _Optional[str] = ..., unmatched: _Optional[_Iterable[_Union[Unmatched, _Mapping]]] = ...) -> None: ...

class Unmatched(_message.Message):
    __slots__ = ("pattern", "hint")
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    pattern: str
    hint: str
    def __init__(self, pattern: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class GatewayStatus(_message.Message):
    __slots__ = ("name", "node", "release", "pid", "uptime_seconds", "frontend", "addresses", "state", "reasons", "in_flight", "models_by_state", "unknown_models", "notes", "notes_left_off")
    class AddressesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ModelsByStateEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FRONTEND_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MODELS_BY_STATE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_MODELS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    NOTES_LEFT_OFF_FIELD_NUMBER: _ClassVar[int]
    name: str
    node: str
    release: str
    pid: int
    uptime_seconds: float
    frontend: str
    addresses: _containers.ScalarMap[str, str]
    state: str
    reasons: _containers.RepeatedScalarFieldContainer[str]
    in_flight: int
    models_by_state: _containers.ScalarMap[str, int]
    unknown_models: Figures
    notes: _containers.RepeatedScalarFieldContainer[str]
    notes_left_off: int
    def __init__(self, name: _Optional[str] = ..., node: _Optional[str] = ..., release: _Optional[str] = ..., pid: _Optional[int] = ..., uptime_seconds: _Optional[float] = ..., frontend: _Optional[str] = ..., addresses: _Optional[_Mapping[str, str]] = ..., state: _Optional[str] = ..., reasons: _Optional[_Iterable[str]] = ..., in_flight: _Optional[int] = ..., models_by_state: _Optional[_Mapping[str, int]] = ..., unknown_models: _Optional[_Union[Figures, _Mapping]] = ..., notes: _Optional[_Iterable[str]] = ..., notes_left_off: _Optional[int] = ...) -> None: ...

class ConfigurationStatus(_message.Message):
    __slots__ = ("source", "away", "away_seconds", "from_disk", "desired_revision", "applied_revision", "heard_seconds_ago", "problems", "problems_left_off")
    class ProblemsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    AWAY_FIELD_NUMBER: _ClassVar[int]
    AWAY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FROM_DISK_FIELD_NUMBER: _ClassVar[int]
    DESIRED_REVISION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_REVISION_FIELD_NUMBER: _ClassVar[int]
    HEARD_SECONDS_AGO_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_LEFT_OFF_FIELD_NUMBER: _ClassVar[int]
    source: str
    away: str
    away_seconds: float
    from_disk: bool
    desired_revision: int
    applied_revision: int
    heard_seconds_ago: float
    problems: _containers.ScalarMap[str, str]
    problems_left_off: int
    def __init__(self, source: _Optional[str] = ..., away: _Optional[str] = ..., away_seconds: _Optional[float] = ..., from_disk: _Optional[bool] = ..., desired_revision: _Optional[int] = ..., applied_revision: _Optional[int] = ..., heard_seconds_ago: _Optional[float] = ..., problems: _Optional[_Mapping[str, str]] = ..., problems_left_off: _Optional[int] = ...) -> None: ...

class SlotStatus(_message.Message):
    __slots__ = ("slot", "node", "device", "state", "reason", "restarts", "capacity", "memory_bytes", "batches_in_flight", "utilisation", "pid", "memory_limit_bytes")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    BATCHES_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    UTILISATION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    slot: str
    node: str
    device: str
    state: str
    reason: str
    restarts: int
    capacity: int
    memory_bytes: int
    batches_in_flight: int
    utilisation: float
    pid: int
    memory_limit_bytes: int
    def __init__(self, slot: _Optional[str] = ..., node: _Optional[str] = ..., device: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., restarts: _Optional[int] = ..., capacity: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., batches_in_flight: _Optional[int] = ..., utilisation: _Optional[float] = ..., pid: _Optional[int] = ..., memory_limit_bytes: _Optional[int] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("model", "revision", "applied", "waits", "problem", "load_mode", "labels", "split", "rules", "sticky", "versions", "versions_left_off", "refused")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SplitEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    LOAD_MODE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    STICKY_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_LEFT_OFF_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: int
    applied: int
    waits: _containers.RepeatedScalarFieldContainer[str]
    problem: str
    load_mode: str
    labels: _containers.ScalarMap[str, str]
    split: _containers.ScalarMap[str, float]
    rules: int
    sticky: str
    versions: _containers.RepeatedCompositeFieldContainer[VersionStatus]
    versions_left_off: int
    refused: Figures
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[int] = ..., applied: _Optional[int] = ..., waits: _Optional[_Iterable[str]] = ..., problem: _Optional[str] = ..., load_mode: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., split: _Optional[_Mapping[str, float]] = ..., rules: _Optional[int] = ..., sticky: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[VersionStatus, _Mapping]]] = ..., versions_left_off: _Optional[int] = ..., refused: _Optional[_Union[Figures, _Mapping]] = ...) -> None: ...

class VersionStatus(_message.Message):
    __slots__ = ("version", "state", "reason", "batchable", "why_not_batchable", "instances", "memory_bytes", "load_seconds", "queue_depth", "in_flight", "figures")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BATCHABLE_FIELD_NUMBER: _ClassVar[int]
    WHY_NOT_BATCHABLE_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    version: str
    state: str
    reason: str
    batchable: bool
    why_not_batchable: str
    instances: _containers.RepeatedCompositeFieldContainer[InstanceStatus]
    memory_bytes: int
    load_seconds: float
    queue_depth: int
    in_flight: int
    figures: Figures
    def __init__(self, version: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., batchable: _Optional[bool] = ..., why_not_batchable: _Optional[str] = ..., instances: _Optional[_Iterable[_Union[InstanceStatus, _Mapping]]] = ..., memory_bytes: _Optional[int] = ..., load_seconds: _Optional[float] = ..., queue_depth: _Optional[int] = ..., in_flight: _Optional[int] = ..., figures: _Optional[_Union[Figures, _Mapping]] = ...) -> None: ...

class InstanceStatus(_message.Message):
    __slots__ = ("slot", "device", "runtime", "state", "reason", "count")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    slot: str
    device: str
    runtime: str
    state: str
    reason: str
    count: int
    def __init__(self, slot: _Optional[str] = ..., device: _Optional[str] = ..., runtime: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class Figures(_message.Message):
    __slots__ = ("window_seconds", "requests_per_second", "errors_per_second", "mean_batch_size", "p50_seconds", "p99_seconds", "requests_total", "outcomes_total")
    class OutcomesTotalEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    WINDOW_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ERRORS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    MEAN_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    P50_SECONDS_FIELD_NUMBER: _ClassVar[int]
    P99_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    window_seconds: float
    requests_per_second: float
    errors_per_second: float
    mean_batch_size: float
    p50_seconds: float
    p99_seconds: float
    requests_total: int
    outcomes_total: _containers.ScalarMap[str, int]
    def __init__(self, window_seconds: _Optional[float] = ..., requests_per_second: _Optional[float] = ..., errors_per_second: _Optional[float] = ..., mean_batch_size: _Optional[float] = ..., p50_seconds: _Optional[float] = ..., p99_seconds: _Optional[float] = ..., requests_total: _Optional[int] = ..., outcomes_total: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("model", "version", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("model", "revision", "by", "rule", "conditions", "sticky", "sticky_value", "ways", "failure", "applied", "waits", "problem")
    class ConditionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    STICKY_FIELD_NUMBER: _ClassVar[int]
    STICKY_VALUE_FIELD_NUMBER: _ClassVar[int]
    WAYS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: int
    by: str
    rule: int
    conditions: _containers.ScalarMap[str, str]
    sticky: str
    sticky_value: str
    ways: _containers.RepeatedCompositeFieldContainer[Way]
    failure: Failure
    applied: int
    waits: _containers.RepeatedScalarFieldContainer[str]
    problem: str
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[int] = ..., by: _Optional[str] = ..., rule: _Optional[int] = ..., conditions: _Optional[_Mapping[str, str]] = ..., sticky: _Optional[str] = ..., sticky_value: _Optional[str] = ..., ways: _Optional[_Iterable[_Union[Way, _Mapping]]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., applied: _Optional[int] = ..., waits: _Optional[_Iterable[str]] = ..., problem: _Optional[str] = ...) -> None: ...

class Way(_message.Message):
    __slots__ = ("version", "share", "failure", "servable", "asleep")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    SERVABLE_FIELD_NUMBER: _ClassVar[int]
    ASLEEP_FIELD_NUMBER: _ClassVar[int]
    version: str
    share: float
    failure: Failure
    servable: ServableStatus
    asleep: bool
    def __init__(self, version: _Optional[str] = ..., share: _Optional[float] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., servable: _Optional[_Union[ServableStatus, _Mapping]] = ..., asleep: _Optional[bool] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class RecentRequestsRequest(_message.Message):
    __slots__ = ("id", "model", "limit")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    limit: int
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class RecentRequestsResponse(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RecentRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RecentRequest, _Mapping]]] = ...) -> None: ...

class RecentRequest(_message.Message):
    __slots__ = ("request_id", "trace_id", "traced", "why", "outcome", "message", "model", "version", "revision", "route", "arrived_unix_seconds", "total_seconds", "phases", "batch", "tries")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    TRACED_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    ARRIVED_UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    TRIES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    trace_id: str
    traced: bool
    why: str
    outcome: str
    message: str
    model: str
    version: str
    revision: int
    route: str
    arrived_unix_seconds: float
    total_seconds: float
    phases: _containers.RepeatedCompositeFieldContainer[RequestPhase]
    batch: RequestBatch
    tries: _containers.RepeatedCompositeFieldContainer[LostTry]
    def __init__(self, request_id: _Optional[str] = ..., trace_id: _Optional[str] = ..., traced: _Optional[bool] = ..., why: _Optional[str] = ..., outcome: _Optional[str] = ..., message: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., revision: _Optional[int] = ..., route: _Optional[str] = ..., arrived_unix_seconds: _Optional[float] = ..., total_seconds: _Optional[float] = ..., phases: _Optional[_Iterable[_Union[RequestPhase, _Mapping]]] = ..., batch: _Optional[_Union[RequestBatch, _Mapping]] = ..., tries: _Optional[_Iterable[_Union[LostTry, _Mapping]]] = ...) -> None: ...

class RequestPhase(_message.Message):
    __slots__ = ("name", "seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    seconds: float
    def __init__(self, name: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class RequestBatch(_message.Message):
    __slots__ = ("rows", "requests", "close_reason", "device", "worker", "mates")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CLOSE_REASON_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    MATES_FIELD_NUMBER: _ClassVar[int]
    rows: int
    requests: int
    close_reason: str
    device: str
    worker: str
    mates: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, rows: _Optional[int] = ..., requests: _Optional[int] = ..., close_reason: _Optional[str] = ..., device: _Optional[str] = ..., worker: _Optional[str] = ..., mates: _Optional[_Iterable[str]] = ...) -> None: ...

class LostTry(_message.Message):
    __slots__ = ("worker", "reason", "seconds")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    reason: str
    seconds: float
    def __init__(self, worker: _Optional[str] = ..., reason: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class ServableStatus(_message.Message):
    __slots__ = ("batchable", "why_not_batchable", "max_batch_size", "max_queue_delay_us", "queue_depth", "max_queue_size", "in_flight", "hostings")
    BATCHABLE_FIELD_NUMBER: _ClassVar[int]
    WHY_NOT_BATCHABLE_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_DELAY_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    HOSTINGS_FIELD_NUMBER: _ClassVar[int]
    batchable: bool
    why_not_batchable: str
    max_batch_size: int
    max_queue_delay_us: int
    queue_depth: int
    max_queue_size: int
    in_flight: int
    hostings: _containers.RepeatedCompositeFieldContainer[HostingStatus]
    def __init__(self, batchable: _Optional[bool] = ..., why_not_batchable: _Optional[str] = ..., max_batch_size: _Optional[int] = ..., max_queue_delay_us: _Optional[int] = ..., queue_depth: _Optional[int] = ..., max_queue_size: _Optional[int] = ..., in_flight: _Optional[int] = ..., hostings: _Optional[_Iterable[_Union[HostingStatus, _Mapping]]] = ...) -> None: ...

class HostingStatus(_message.Message):
    __slots__ = ("slot", "device", "count", "batches_in_flight", "slot_batches_in_flight")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    BATCHES_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SLOT_BATCHES_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    slot: str
    device: str
    count: int
    batches_in_flight: int
    slot_batches_in_flight: int
    def __init__(self, slot: _Optional[str] = ..., device: _Optional[str] = ..., count: _Optional[int] = ..., batches_in_flight: _Optional[int] = ..., slot_batches_in_flight: _Optional[int] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("end", "deadline_seconds", "exit")
    END_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    end: bool
    deadline_seconds: float
    exit: bool
    def __init__(self, end: _Optional[bool] = ..., deadline_seconds: _Optional[float] = ..., exit: _Optional[bool] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("draining", "in_flight", "exiting")
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    EXITING_FIELD_NUMBER: _ClassVar[int]
    draining: bool
    in_flight: int
    exiting: bool
    def __init__(self, draining: _Optional[bool] = ..., in_flight: _Optional[int] = ..., exiting: _Optional[bool] = ...) -> None: ...

class SetLogLevelRequest(_message.Message):
    __slots__ = ("level", "logger", "duration_seconds")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    LOGGER_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    level: str
    logger: str
    duration_seconds: float
    def __init__(self, level: _Optional[str] = ..., logger: _Optional[str] = ..., duration_seconds: _Optional[float] = ...) -> None: ...

class SetLogLevelResponse(_message.Message):
    __slots__ = ("level", "previous", "reverts_in_seconds")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    REVERTS_IN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    level: str
    previous: str
    reverts_in_seconds: float
    def __init__(self, level: _Optional[str] = ..., previous: _Optional[str] = ..., reverts_in_seconds: _Optional[float] = ...) -> None: ...

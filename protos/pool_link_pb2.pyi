from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Description(_message.Message):
    __slots__ = ("node", "release", "slots")
    NODE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    node: str
    release: str
    slots: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[str] = ..., release: _Optional[str] = ..., slots: _Optional[_Iterable[str]] = ...) -> None: ...

class FromGateway(_message.Message):
    __slots__ = ("open", "frames")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    open: Open
    frames: bytes
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., frames: _Optional[bytes] = ...) -> None: ...

class FromPool(_message.Message):
    __slots__ = ("opened", "frames")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    frames: bytes
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., frames: _Optional[bytes] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("slot", "gateway", "max_output_bytes")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    slot: str
    gateway: str
    max_output_bytes: int
    def __init__(self, slot: _Optional[str] = ..., gateway: _Optional[str] = ..., max_output_bytes: _Optional[int] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("segment_bytes", "budget_bytes")
    SEGMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    segment_bytes: int
    budget_bytes: int
    def __init__(self, segment_bytes: _Optional[int] = ..., budget_bytes: _Optional[int] = ...) -> None: ...

class EndRequest(_message.Message):
    __slots__ = ("slot", "pid", "reason")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    slot: str
    pid: int
    reason: str
    def __init__(self, slot: _Optional[str] = ..., pid: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class EndResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

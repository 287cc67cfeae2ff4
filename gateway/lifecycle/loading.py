"""Loading one instance: load, probe, warm up, in the slot's worker."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, NamedTuple

from gateway.workerpool.remote.source import source_path
from wire.frames import (
    Kind,
    Load,
    Loaded,
    PadAxis,
    Probe,
    Probed,
    Report,
    ServableSpec,
    Signature,
    TensorSpec,
    Unload,
    WarmedUp,
    WarmUp,
)

if TYPE_CHECKING:
    from gateway.config.document import ModelDocument
    from gateway.lifecycle.desired import DesiredVersion
    from gateway.lifecycle.placement import Placed
    from gateway.workerpool.seam import Link
    from gateway.workerpool.slot import Slot

LOAD_TIMEOUT_S = 600.0
_servable_ids = itertools.count(1)


class LoadedInstance(NamedTuple):
    """What a worker found out about a version on its slot."""

    servable_id: int
    signature: Signature
    probed: Probed
    warmed: tuple[tuple[int, int], ...]  # (rows, ns) of each warm-up
    load_ns: int
    memory_bytes: int


def spec_key(document: ModelDocument, source: DesiredVersion) -> str:
    """Return a digest of everything that makes a load a different one; what policy changes at once is left
    out.
    """
    batching = document.batching
    parts = (
        document.model,
        source.version,
        source.source or source.path,
        source.digest if source.source else source.fingerprint,
        document.instances,
        batching.batchable,
        batching.max_batch_size > 1,  # the probe has nothing to find out about single rows
        batching.pad,
        document.inputs,
        document.outputs,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def servable_spec(
    document: ModelDocument, source: DesiredVersion, placed: Placed, slot: Slot
) -> ServableSpec:
    """Return what the worker is asked to load: a file here, or a source that its pool fetches."""
    path = source.path
    if slot.fetches and source.source:
        path = source_path(source.source, source.digest)
    signature = None
    if document.inputs or document.outputs:
        signature = Signature(
            inputs=tuple(TensorSpec(t.name, t.datatype, t.shape) for t in document.inputs),
            outputs=tuple(TensorSpec(t.name, t.datatype, t.shape) for t in document.outputs),
        )
    return ServableSpec(
        model=document.model,
        version=source.version,
        path=path,
        runtime=placed.runtime,
        device=str(slot.device),
        count=placed.count,
        width=placed.width,
        options=dict(placed.options),
        signature=signature,
        fingerprint=source.fingerprint,
    )


async def load_instance(link: Link, document: ModelDocument, spec: ServableSpec) -> LoadedInstance:
    """Load, probe and warm up.

    Raises:
        RequestRefused: with the runtime's words.
        WorkerLost: the worker went away, perhaps because of this.
        TimeoutError: it takes longer than any load should.
    """
    id_ = next(_servable_ids)
    loaded = await link.request(Kind.LOAD, Load(id_, spec), Loaded, LOAD_TIMEOUT_S)
    batching = document.batching
    declared = None if batching.batchable == "auto" else bool(batching.batchable)
    pads = tuple(PadAxis(name, pad.axis, float(pad.value)) for name, pad in batching.pad.items())
    probed = await link.request(
        Kind.PROBE, Probe(id_, batching.max_batch_size, declared, pads), Probed, LOAD_TIMEOUT_S
    )
    warmed: tuple[tuple[int, int], ...] = ()
    # inputs that the probe could not make up are nothing to warm up with either
    if document.warm_up.runs and "refused" not in probed.reason:
        rows = (1, batching.max_batch_size) if probed.batchable else (1,)
        answer = await link.request(
            Kind.WARM_UP, WarmUp(id_, rows, document.warm_up.runs), WarmedUp, LOAD_TIMEOUT_S
        )
        warmed = tuple(zip(rows, answer.run_ns, strict=False))
    return LoadedInstance(id_, loaded.signature, probed, warmed, loaded.load_ns, loaded.memory_bytes)


async def unload_instance(link: Link, servable_id: int) -> None:
    await link.request(Kind.UNLOAD, Unload(servable_id), Report, LOAD_TIMEOUT_S)

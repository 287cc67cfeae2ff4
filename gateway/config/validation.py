"""From plain data to a Model document, or to everything that is wrong with it.

Types, ranges and names come from the structs (`gateway.config.structure`); here is what spans several fields.
A check runs on each part that is sound by itself, so one wrong field hides no problem of another.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import NODEFAULT, Struct, inspect

from gateway.config.device import Device, parse_device
from gateway.config.document import (
    SCHEMA,
    Batching,
    Instance,
    Load,
    ModelDocument,
    Pad,
    Part,
    Priorities,
    TensorSpec,
    Trace,
    Traffic,
    VersionPolicy,
    VersionSource,
)
from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.structure import MAX_HINTS, Reading, Reference
from gateway.config.wording import did_you_mean, join, listed, quote

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

_MODEL_DOCUMENT: Final = inspect.type_info(ModelDocument)
_VERSION = re.compile(r"0|[1-9][0-9]{0,17}")
_OTHER_SCHEMA = re.compile(r"crossgate/v[0-9]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRET_PARAMETER = re.compile(
    r"(?i)token|secret|passw|credential|signature|^sig$|api_?key|access_?key|^auth$|^pwd$"
)
_DEVICES_OF_RUNTIME: Final = {  # {runtime: (kinds of device, in words)}; any other runtime runs anywhere
    "onnxruntime": (("cpu", "cuda"), "cpu, cpu:0-3, cpu@numa1 or cuda:0"),
    "openvino": (("openvino",), "openvino:CPU, openvino:GPU, openvino:GPU.1, openvino:NPU or openvino:AUTO"),
}


def validate(
    data: object, *, model: str | None = None, versions: Collection[str] | None = None
) -> ModelDocument:
    """The document, or DocumentInvalid with every problem.

    `model` is the name it is kept under: it stands in for a missing `model` and refuses another.
    `versions` are those that exist outside the document (a directory's); without them and without `versions`
    in the document, labels and traffic may name any version.
    """
    if isinstance(data, dict):
        refuse_other_schema(data.get("schema"))
        if model is not None:
            data = {"model": model, **data}
        sound = _sound(data, versions)
        if sound is not None and model in (None, sound.model):
            return sound
    return read_with_care(data, model, versions)


def read_with_care(data: object, model: str | None, versions: Collection[str] | None) -> ModelDocument:
    """The document, or DocumentInvalid with every problem; `validate` without its short way."""
    reading = Reading()
    document = reading.read(data, _MODEL_DOCUMENT, "")
    problems = reading.problems
    if isinstance(data, dict):
        problems += wrong_name("model", data.get("model"), model)
        problems += _dangling_references(reading.references, data, versions)
    for path, part in reading.structs.items():
        problems += _wrong_part(path, part)
    problems += _repeated_instances(reading.structs)
    problems += _wrong_signature(reading.structs)
    if problems:
        raise DocumentInvalid(problems)
    assert isinstance(document, ModelDocument)
    return document


def _sound(data: dict[object, object], outside: Collection[str] | None) -> ModelDocument | None:
    """Return the document of data that is plainly right, None where it has to be read with care: a tenth of
    the time for the thousands of documents that a store may hold.
    """
    try:
        document = msgspec.convert(data, ModelDocument)
        msgspec.json.encode(document)  # fails for what no store can carry
    except (msgspec.ValidationError, UnicodeEncodeError, OverflowError):
        return None
    known = {*document.versions, *(outside or ())}
    named = document.named_versions().union(document.version_policy.specific)
    open_ended = outside is None and not known
    dangling = not all(map(_VERSION.fullmatch, named)) if open_ended else not named <= known
    if dangling:
        return None
    structs = dict(_parts(document, ""))
    structs.setdefault("batching", document.batching)
    problems = itertools.chain(
        *(_wrong_part(path, part) for path, part in structs.items()),
        _repeated_instances(structs),
        _wrong_signature(structs),
        *(_odd_numbers(path, part) for path, part in structs.items()),
    )
    return document if next(problems, None) is None else None


def _parts(part: Struct, path: str) -> Iterator[tuple[str, Struct]]:
    """Yield a struct and those in it that are not their fields' defaults, with their paths."""
    yield path, part
    for name, default in zip(part.__struct_fields__, _DEFAULTS[type(part)], strict=True):
        value = getattr(part, name)
        if value is default:
            continue
        at = f"{path}.{name}" if path else name
        if isinstance(value, Struct):
            yield from _parts(value, at)
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                if isinstance(item, Struct):
                    yield from _parts(item, f"{at}[{i}]")
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, Struct):
                    yield from _parts(item, join(at, key))


def _odd_numbers(path: str, part: Struct) -> Iterator[Problem]:
    """Numbers that a type takes and a store does not carry."""
    values: Iterable[object] = ()
    if isinstance(part, Instance):
        values = part.options.values()
    elif isinstance(part, Pad):
        values = (part.value,)
    elif isinstance(part, Trace):
        values = (part.ratio,)
    for value in values:
        if isinstance(value, (int, float)) and not -(2**63) <= value < 2**63:  # nor is it NaN
            yield Problem(path, "is no number for a document")


# {struct type: its fields' defaults, in their order}
_DEFAULTS: Final[dict[type[Struct], tuple[Any, ...]]] = {
    kind: (NODEFAULT,) * (len(kind.__struct_fields__) - len(kind.__struct_defaults__))
    + kind.__struct_defaults__
    for kind in Part.__subclasses__()
}


def refused_changes(before: ModelDocument, after: ModelDocument) -> tuple[Problem, ...]:
    """What `after` may not do to what `before` said: a version's digest is for ever."""
    return tuple(
        Problem(
            f"versions.{version}.digest",
            f"expected {was.digest} as before, got {now.digest or 'none'}; a changed file is a new version",
        )
        for version, was in before.versions.items()
        if (now := after.versions.get(version)) is not None
        and was.digest is not None
        and was.digest != now.digest
    )


def refuse_other_schema(schema: object) -> None:
    """Alone: under another schema every other finding would mislead."""
    if isinstance(schema, str) and schema != SCHEMA and _OTHER_SCHEMA.fullmatch(schema):
        raise DocumentInvalid(
            [Problem("schema", f"{quote(schema)} is not supported by this release; expected {quote(SCHEMA)}")]
        )


def wrong_name(key: str, name: object, kept_as: str | None) -> Iterator[Problem]:
    if kept_as is not None and isinstance(name, str) and name != kept_as:
        yield Problem(key, f"expected {quote(kept_as)}, under which it is kept, got {quote(name)}")


def _keys(data: dict[Any, Any], name: str) -> list[str]:
    """Also those of entries that are wrong, which no reference to them should be blamed for."""
    value = data.get(name)
    return [key for key in value if isinstance(key, str)] if isinstance(value, dict) else []


def _dangling_references(
    references: list[Reference], data: dict[Any, Any], outside: Collection[str] | None
) -> Iterator[Problem]:
    labels, versions = _keys(data, "labels"), _keys(data, "versions")
    open_ended = outside is None and not versions
    versions = sorted({*versions, *(outside or ())}, key=lambda version: (len(version), version))
    known, hinted = {*versions}, 0
    for reference in references:
        text = reference.text
        if text in known or (open_ended and _VERSION.fullmatch(text)):
            continue
        names = versions
        wanted = "a version of this model"
        if reference.refers_to == "target":
            if text in labels:
                continue
            names = labels + versions
            wanted = "a label or a version of this model"
        exist = f" ({listed(names)})" if names else " (there is none)"
        hinted += 1
        hint = did_you_mean(text, names) if hinted < MAX_HINTS else ""
        yield Problem(reference.path, f"expected {wanted}{exist}, got {quote(text)}{hint}")


def _wrong_part(path: str, part: Struct) -> Iterator[Problem]:
    match part:
        case VersionSource():
            yield from _wrong_source(join(path, "source"), part.source)
        case VersionPolicy():
            if (part.latest is not None) + part.all + bool(part.specific) != 1:
                yield Problem(path, "expected exactly one of latest, all: true and specific")
        case Traffic():
            if part.split and not sum(part.split.values()):
                yield Problem(join(path, "split"), "expected at least one weight above 0")
        case Instance():
            yield from _wrong_device(join(path, "device"), part)
        case Batching():
            if part.batchable is not False and part.max_queue_size < part.max_batch_size:
                yield Problem(
                    join(path, "max_queue_size"),
                    f"expected at least {part.max_batch_size}, the max_batch_size, got {part.max_queue_size}",
                )
        case Pad():
            if any(a >= b for a, b in zip(part.buckets, part.buckets[1:], strict=False)):
                yield Problem(join(path, "buckets"), f"expected numbers that increase, got {[*part.buckets]}")
        case Priorities():
            yield from _wrong_default_priority(join(path, "default"), part)
        case Load():
            if part.idle_unload_s is not None and part.mode != "on_demand":
                yield Problem(join(path, "idle_unload_s"), "is only for mode: on_demand")
        case ModelDocument():
            if part.load.mode != "always" and part.required:
                yield Problem("required", f"expected false with load.mode {part.load.mode}")
            if part.versions and part.version_policy != VersionPolicy(latest=1):
                yield Problem(
                    "version_policy", "chooses among a directory's versions, but this document has versions"
                )


def _wrong_source(path: str, source: str) -> Iterator[Problem]:
    """No message repeats the URL: logs keep it."""
    if source.startswith("/"):
        yield Problem(path, f"expected a URL, got a path; did you mean {quote('file://' + source)}?")
        return
    if not _SCHEME.match(source):
        yield Problem(
            path, "expected a URL such as file:///srv/models/digits-1.zip or s3://models/digits-1.zip"
        )
    for part in source.split("::"):  # fsspec's chained URLs
        try:
            url = urlsplit(part)
            secret = url.username is not None or any(
                _SECRET_PARAMETER.search(key)
                for key, _ in parse_qsl(f"{url.query}&{url.fragment}", keep_blank_values=True)
            )
        except ValueError as error:
            yield Problem(path, f"expected a URL: {error}")
            return
        if secret:
            yield Problem(
                path, "holds credentials; leave them to the environment of the process that fetches"
            )
            return


def _wrong_device(path: str, instance: Instance) -> Iterator[Problem]:
    try:
        device = parse_device(instance.device)
    except ValueError as error:
        forms = ("cpu", "cuda:0", "openvino:CPU", "openvino:GPU", "openvino:NPU", "openvino:AUTO")
        yield Problem(path, f"{error}, got {quote(instance.device)}{did_you_mean(instance.device, forms)}")
        return
    kinds, words = _DEVICES_OF_RUNTIME.get(instance.runtime, ((device.kind,), ""))
    if device.kind not in kinds:
        yield Problem(
            path, f"expected {words} for the runtime {instance.runtime}, got {quote(instance.device)}"
        )


def _wrong_default_priority(path: str, priorities: Priorities) -> Iterator[Problem]:
    if priorities.levels and not 1 <= priorities.default <= priorities.levels:
        yield Problem(
            path, f"expected 1 to {priorities.levels}, which is priorities.levels, got {priorities.default}"
        )
    if not priorities.levels and priorities.default:
        yield Problem(path, f"expected 0 because priorities.levels is 0, got {priorities.default}")


def _repeated_instances(structs: dict[str, Struct]) -> Iterator[Problem]:
    first: dict[tuple[str, Device, str], str] = {}  # {(runtime, device, node): path}
    for path, part in structs.items():
        if not isinstance(part, Instance):
            continue
        try:
            key = (part.runtime, parse_device(part.device), part.where.node)
        except ValueError:
            continue
        if key in first:
            yield Problem(path, f"repeats {first[key]}; raise its count instead")
        first.setdefault(key, path)


def _wrong_signature(structs: dict[str, Struct]) -> Iterator[Problem]:
    batching = structs.get("batching")
    inputs: dict[str, TensorSpec] = {}  # {name: input}
    seen: dict[tuple[str, str], str] = {}  # {(inputs or outputs, name): path}
    for path, tensor in structs.items():
        if not isinstance(tensor, TensorSpec):
            continue
        side = path.partition("[")[0]
        if side == "inputs":
            inputs.setdefault(tensor.name, tensor)
        if (side, tensor.name) in seen:
            yield Problem(join(path, "name"), f"repeats {seen[side, tensor.name]}: {quote(tensor.name)}")
        seen.setdefault((side, tensor.name), path)
        if isinstance(batching, Batching) and batching.batchable is True and tensor.shape[:1] != (-1,):
            yield Problem(
                join(path, "shape"),
                "expected -1 as the first dimension, the batch, because batching.batchable is true",
            )
    if isinstance(batching, Batching):
        yield from _wrong_padding(batching, inputs)


def _wrong_padding(batching: Batching, inputs: dict[str, TensorSpec]) -> Iterator[Problem]:
    for name, pad in batching.pad.items():
        at = join("batching.pad", name)
        if pad.axis == 0 and batching.batchable is not False:
            yield Problem(
                join(at, "axis"), "expected 1 or more: axis 0 is the batch unless batchable is false"
            )
        if inputs and name not in inputs:
            yield Problem(at, f"expected an input ({listed(inputs)}){did_you_mean(name, inputs)}")
        elif inputs and inputs[name].shape[pad.axis : pad.axis + 1] != (-1,):
            yield Problem(
                join(at, "axis"), f"expected a dynamic dimension of {quote(name)}: {[*inputs[name].shape]}"
            )

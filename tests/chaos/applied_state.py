"""What a gateway has applied, by everything that shows it, beside what etcd says that it should have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from stored_state import Expected, Routing

from crossgate import CrossgateError, NotFound
from gateway.config.keys import gateway_key, status_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mortal_gateway import MortalGateway
    from stored_state import StoredState

    from protos import admin_pb2 as pb

ASKED = 12  # requests that name no version, of each model


def differences(
    gateway: MortalGateway, state: StoredState, last_good: Mapping[str, Sequence[Routing]]
) -> list[str]:
    """Compare what the gateway tells its operator, and what it tells the store, with the store. A model whose
    document is invalid keeps one of `last_good`. Blocks.
    """
    pages = gateway.status()
    told = {model.model: model for page in pages for model in page.models}
    expected = state.expected()
    found = [f"{model} is served and not stored" for model in told.keys() - expected.keys()]
    reported = state.folder(f"status/{gateway.name}")
    found += [f"status of {model} stays" for model in reported.keys() - expected.keys()]
    for model, each in expected.items():
        if model not in told:
            found.append(f"{model} is stored and not served")
            continue
        found += [f"{model}: {flaw}" for flaw in _of_admin(told[model], each, last_good.get(model, ()))]
        held = state.entries.get(status_key(gateway.name, model))
        if held is None:
            found.append(f"{model} has no status in the store")
        else:
            found += [f"{model}: status: {flaw}" for flaw in _of_status(json.loads(held.value), each)]
    return found + _of_presence(gateway, state)


async def wrong_answers(gateway: MortalGateway, state: StoredState) -> list[str]:
    """Ask for every version and label of every model, and without either: the answer shows which version
    gave it.
    """
    found = []
    async with gateway.life.async_client() as client:

        async def version_of(model: str, asked: str) -> str:
            try:
                result = await client.infer(model, {"x": np.full((1, 4), 1, np.float32)}, version=asked)
            except NotFound:
                return "NOT_FOUND"
            except CrossgateError as error:
                return str(error)
            return str(int(result["y"][0, 0]) - 1)

        for model, each in state.expected().items():
            if each.document is None:
                continue
            routing = Routing.of(each.document)
            wanted = {version: version for version in each.document["versions"]} | routing.labels
            answers = {asked: await version_of(model, asked) for asked in wanted}
            if answers != wanted:
                found.append(f"{model}: {answers} answered, not {wanted}")
            by_chance = {await version_of(model, "") for _ in range(ASKED)}
            if not by_chance <= routing.split.keys():
                found.append(f"{model}: {sorted(by_chance)} answered, not of {dict(routing.split)}")
            if (answer := await version_of(model, "78")) != "NOT_FOUND":
                found.append(f"{model}: a version that is not there: {answer}")
        if (answer := await version_of("nobody", "")) != "NOT_FOUND":
            found.append(f"a model that is not there: {answer}")
    return found


def _of_admin(told: pb.ModelStatus, expected: Expected, last_good: Sequence[Routing]) -> list[str]:
    routing = Routing(dict(told.labels), {version: round(share, 6) for version, share in told.split.items()})
    if expected.document is None:
        found = [] if told.problem else ["it is invalid, and nobody says so"]
        if routing not in last_good:
            found.append(f"{routing} is in force, which is no last good one")
        return found
    found = _of_revisions(told.revision, told.applied, told.problem, expected)
    if routing != Routing.of(expected.document):
        found.append(f"{routing} is in force, not {Routing.of(expected.document)}")
    states = {version.version: version.state for version in told.versions}
    if states != dict.fromkeys(expected.document["versions"], "READY"):
        found.append(f"its versions are {states}")
    return found


def _of_status(status: Mapping[str, object], expected: Expected) -> list[str]:
    if expected.document is None:
        return [] if status.get("problem") else ["it is invalid, and nobody says so"]
    found = _of_revisions(
        int(str(status["revision"])),
        int(str(status.get("applied", 0))),
        str(status.get("problem", "")),
        expected,
    )
    versions = status.get("versions", {})
    assert isinstance(versions, dict)
    if set(versions) != set(expected.document["versions"]) or any(
        each["state"] != "READY" for each in versions.values()
    ):
        found.append(f"its versions are {versions}")
    return found


def _of_revisions(revision: int, applied: int, problem: str, expected: Expected) -> list[str]:
    found = []
    if revision < expected.revision:
        found.append(f"revision {revision}, not {expected.revision}")
    if applied != revision:
        found.append(f"applied is {applied} of {revision}")
    if problem:
        found.append(f"it is valid, but: {problem}")
    return found


def _of_presence(gateway: MortalGateway, state: StoredState) -> list[str]:
    held = state.entries.get(gateway_key(gateway.name))
    if held is None:
        return ["the gateway itself is not in the store"]
    presence = json.loads(held.value)
    found = [] if presence["pid"] == gateway.life.pid else [f"the presence is of process {presence['pid']}"]
    newest = max((each.revision for each in state.expected().values()), default=0)
    if presence.get("observed", 0) < newest:
        found.append(f"observed is {presence.get('observed', 0)} of {newest}")
    return found

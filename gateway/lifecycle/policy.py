"""What to do next with one model: a pure function from a snapshot to actions, in the order in which they are
to be taken.

It is level-triggered: whatever happened, the same snapshot gives the same actions, and an action that failed
is simply due again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.lifecycle.record import InstanceState
from gateway.scheduling.decision import NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class InstanceView(NamedTuple):
    slot: str
    state: InstanceState
    slot_up: bool
    retry_ns: int = NEVER


class VersionView(NamedTuple):
    """`busy`: requests wait or run. `fetch`: how far its files are; without them it has no instances.
    `leaving`: it is to go, whether or not another version is there.
    """

    key: str
    version: str
    instances: Sequence[InstanceView]
    ready: bool
    draining: bool = False
    busy: bool = False
    drain_until_ns: int = NEVER
    blocked_until_ns: int = 0
    fetch: InstanceState = InstanceState.READY
    fetch_retry_ns: int = NEVER
    leaving: bool = False


class ModelView(NamedTuple):
    """`wanted` is {version: key}."""

    wanted: Mapping[str, str]
    versions: Sequence[VersionView]


class Fetch(NamedTuple):
    """Get a version's files, then place it."""

    key: str


class LoadInstance(NamedTuple):
    key: str
    slot: str


class StartSlot(NamedTuple):
    slot: str


class Drain(NamedTuple):
    """Take a version out of the routing table; it finishes what it has."""

    key: str


class Forget(NamedTuple):
    """Unload a version that has drained, or was never ready."""

    key: str


class WakeAt(NamedTuple):
    at_ns: int


Action = Fetch | LoadInstance | StartSlot | Drain | Forget | WakeAt


def next_actions(now_ns: int, model: ModelView) -> list[Action]:
    """Return what is due now, and when to look again."""
    actions: list[Action] = []
    wake_ns = NEVER
    wanted_keys = set(model.wanted.values())
    # The old ones go when every wanted version can serve: a failed load leaves the old one serving.
    replaced = bool(model.wanted) and all(
        any(view.key == key and view.ready for view in model.versions) for key in wanted_keys
    )
    for view in model.versions:
        leaving = view.draining or view.leaving or (view.key not in wanted_keys and not view.ready)
        if leaving and _at_work(view):
            continue  # its end is awaited, so that there is something to unload
        if view.leaving and not view.draining:
            actions.append(Drain(view.key) if view.ready else Forget(view.key))
        elif view.draining:
            if not view.busy or view.drain_until_ns <= now_ns:
                actions.append(Forget(view.key))
            else:
                wake_ns = min(wake_ns, view.drain_until_ns, now_ns + 20_000_000)
        elif view.key not in wanted_keys and not view.ready:
            actions.append(Forget(view.key))
        elif view.key not in wanted_keys and (replaced or not model.wanted or _superseded(view, model)):
            actions.append(Drain(view.key))
        else:
            # wanted; or it serves until its successor does, and is kept on its feet until then
            for action, at_ns in _keep(now_ns, view):
                wake_ns = min(wake_ns, at_ns)
                if action is not None:
                    actions.append(action)
    if wake_ns != NEVER:
        actions.append(WakeAt(wake_ns))
    return actions


def _at_work(view: VersionView) -> bool:
    return view.fetch is InstanceState.LOADING or any(
        instance.state is InstanceState.LOADING for instance in view.instances
    )


def _keep(now_ns: int, view: VersionView) -> list[tuple[Action | None, int]]:
    """Return what a version needs now to serve, and when to look again."""
    if view.fetch is InstanceState.READY:
        return [_instance(now_ns, view, instance) for instance in view.instances]
    if view.fetch is InstanceState.LOADING:
        return []
    if view.fetch is InstanceState.FAILED and view.fetch_retry_ns > now_ns:
        return [(None, view.fetch_retry_ns)]
    return [(Fetch(view.key), NEVER)]


def _superseded(view: VersionView, model: ModelView) -> bool:
    """Another load of the same version is ready: this one is only its predecessor."""
    key = model.wanted.get(view.version)
    return key is not None and any(other.key == key and other.ready for other in model.versions)


def _instance(now_ns: int, view: VersionView, instance: InstanceView) -> tuple[Action | None, int]:
    """Return what an instance needs now, and when to look again."""
    if view.blocked_until_ns > now_ns:
        return None, view.blocked_until_ns
    if instance.state in (InstanceState.LOADING, InstanceState.READY):
        return None, NEVER
    if not instance.slot_up:
        return StartSlot(instance.slot), NEVER
    if instance.state is InstanceState.FAILED and instance.retry_ns > now_ns:
        return None, instance.retry_ns
    return LoadInstance(view.key, instance.slot), NEVER

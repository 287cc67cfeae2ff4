"""The sessions of this worker: one for each distinct spec, shared by all gateways that loaded it.

A session whose gateway went away stays for the worker's grace period, so that a gateway may restart without
loading every model again; one that was unloaded closes as soon as no batch needs it any more.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wire.frames import Loaded, ServableSpec, Signature, TensorSpec
from workers.runtimes.runtime import LoadFailed, Runtime, Session, open_runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from wire.frames import Body


@dataclass(eq=False)
class LoadedSession:
    """A session, how many links use it, and how many batches need it. `running` is the executor's."""

    spec: ServableSpec
    session: Session
    loaded: Loaded
    users: int = 0
    batches: int = 0  # that wait for it or run on it
    running: int = 0
    kept: bool = False  # for a gateway that may come back
    closed: bool = False
    found: dict[Body, Body] = field(default_factory=dict)  # {question: answer}; the loader's

    def ask(self, question: Body, answer: Callable[[], Body]) -> Body:
        """Return what was found out before in answer to an equal question, else find it out now: another
        gateway need not wait, nor disturb what runs.
        """
        known = self.found.get(question)
        if known is None:
            known = self.found[question] = answer()
        return known


class Sessions:
    """Loads on the loader's thread only; the table may be read from any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runtimes: dict[str, Runtime] = {}  # {name: opened runtime}
        self._sessions: dict[bytes, LoadedSession] = {}  # {spec's key: session}

    def acquire(self, spec: ServableSpec) -> LoadedSession:
        """Return the session of this spec, loading it when it is the first.

        Raises:
            LoadFailed: with the reason.
        """
        key = repr(spec).encode()
        with self._lock:
            entry = self._sessions.get(key)
            if entry is not None:
                entry.users += 1
                entry.kept = False
                return entry
        entry = self._load(spec)
        entry.users = 1
        with self._lock:
            self._sessions[key] = entry
        return entry

    def _load(self, spec: ServableSpec) -> LoadedSession:
        start = time.monotonic_ns()
        runtime = self._runtimes.get(spec.runtime)
        if runtime is None:
            runtime = self._runtimes[spec.runtime] = open_runtime(spec.runtime)
        before = resident_bytes()  # with the engine, which no model is charged for
        session = runtime.load(spec)
        if spec.signature is not None:
            problems = disagreements(spec.signature, session.signature)
            if problems:
                session.close()
                raise LoadFailed("the declared signature is not the model's: " + "; ".join(problems))
        loaded = Loaded(session.signature, time.monotonic_ns() - start, max(resident_bytes() - before, 0))
        return LoadedSession(spec, session, loaded)

    def release(self, entry: LoadedSession, *, keep: bool = False) -> None:
        """One user less. The last one closes the session once no batch needs it, unless it is kept."""
        with self._lock:
            entry.users -= 1
            entry.kept = keep
            self._close_when_unused(entry)

    def need(self, entry: LoadedSession) -> bool:
        """Keep a session open for a batch until `finished`; false when it is closed already."""
        with self._lock:
            if not entry.closed:
                entry.batches += 1
            return not entry.closed

    def finished(self, entry: LoadedSession) -> None:
        """A batch has run, or never will."""
        with self._lock:
            entry.batches -= 1
            self._close_when_unused(entry)

    def _close_when_unused(self, entry: LoadedSession) -> None:
        if not (entry.users or entry.batches or entry.kept or entry.closed):
            entry.closed = True
            self._sessions.pop(repr(entry.spec).encode(), None)
            entry.session.close()

    def close_kept(self) -> None:
        """Close what was kept for a gateway that did not come back."""
        with self._lock:
            for entry in list(self._sessions.values()):
                entry.kept = False
                self._close_when_unused(entry)


def disagreements(declared: Signature, actual: Signature) -> list[str]:
    """Return what a declared signature says that the model does not; empty when it fits."""
    problems = []
    for side, ours, theirs in (
        ("input", declared.inputs, actual.inputs),
        ("output", declared.outputs, actual.outputs),
    ):
        known = {spec.name: spec for spec in theirs}
        for spec in ours:
            there = known.get(spec.name)
            if there is None:
                problems.append(
                    f"{side} {spec.name} does not exist; the model has {', '.join(known) or 'none'}"
                )
            elif spec.datatype != there.datatype:
                problems.append(f"{side} {spec.name} is {there.datatype}, not {spec.datatype}")
            elif not _fits(spec, there):
                problems.append(f"{side} {spec.name} has shape {list(there.shape)}, not {list(spec.shape)}")
        if side == "input":
            missing = sorted(set(known) - {spec.name for spec in ours})
            problems += [f"input {name} is not declared" for name in missing]
    return problems


def _fits(declared: TensorSpec, actual: TensorSpec) -> bool:
    return len(declared.shape) == len(actual.shape) and all(
        a in (-1, d) or d == -1 for d, a in zip(declared.shape, actual.shape, strict=True)
    )


def resident_bytes() -> int:
    """Return the resident set of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

"""Pages of the gateway's state.

A page is built in steps of less than a millisecond, between which the event loop serves requests, and is cut
off before it is larger than clients take. What changes between two steps is seen as it is then.
"""

from __future__ import annotations

import re
from collections import Counter
from fnmatch import translate
from typing import TYPE_CHECKING, Final

from gateway.admin.figures import figures_of
from gateway.admin.models import Accounts, cut, model_status, state_of
from protos import admin_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.admin.recent import Recent
    from gateway.admin.view import View

DEFAULT_LIMIT: Final = 200
MAX_LIMIT: Final = 1000
MAX_PATTERNS: Final = 100
MAX_PAGE_BYTES: Final = 2 << 20
_MAX_PROBLEMS: Final = 100
_MODELS_PER_STEP: Final = 8  # whole messages; many versions make one large
_NAMES_PER_STEP: Final = 256


class Page:
    """`steps` fills `message`; `names` are then all models, and `missing` the patterns without wildcards
    that none of them matches.
    """

    def __init__(
        self, view: View, recent: Recent, patterns: Sequence[str], limit: int = 0, after: str = ""
    ) -> None:
        self.message = pb.StatusResponse()
        self.names: list[str] = []
        self.missing: list[str] = []
        self._view = view
        self._recent = recent
        self._patterns = patterns
        self._limit = min(limit or DEFAULT_LIMIT, MAX_LIMIT)
        self._after = after

    def steps(self, now_ns: int) -> Iterator[None]:
        self._add_gateway(now_ns)
        self._add_configuration()
        yield
        self._add_slots(now_ns)
        yield
        self.names = sorted(self._view.served)
        yield
        if not self._after:
            yield from self._count_states()
        matching: list[str] = []
        for _ in self._match(matching):
            yield
        self.message.models_matching = len(matching)
        yield from self._add_models(matching, now_ns)

    def _add_gateway(self, now_ns: int) -> None:
        view, identity = self._view, self._view.identity
        ready, reasons = view.readiness()
        draining = view.draining()
        notes = view.notes()
        gateway = self.message.gateway
        gateway.MergeFrom(
            pb.GatewayStatus(
                name=identity.gateway,
                node=identity.node,
                release=identity.release,
                pid=identity.pid,
                uptime_seconds=(now_ns - identity.started_ns) / 1e9,
                frontend=identity.frontend,
                addresses=dict(view.addresses()),
                state="draining" if draining else "serving" if ready else "starting",
                reasons=[cut(reason) for reason in reasons[:_MAX_PROBLEMS]],
                in_flight=view.in_flight(),
                notes=[cut(note) for note in notes[:_MAX_PROBLEMS]],
                notes_left_off=max(len(notes) - _MAX_PROBLEMS, 0),
            )
        )
        gateway.unknown_models.CopyFrom(figures_of(self._recent, now_ns, view.accounts.unknown))

    def _add_configuration(self) -> None:
        state = self._view.configuration()
        problems = list(state.problems.items())
        self.message.configuration.MergeFrom(
            pb.ConfigurationStatus(
                source=state.source,
                away=state.away,
                away_seconds=state.away_s,
                from_disk=state.from_disk,
                desired_revision=state.desired,
                applied_revision=state.applied,
                heard_seconds_ago=state.heard_s,
                problems={what: cut(problem) for what, problem in problems[:_MAX_PROBLEMS]},
                problems_left_off=max(len(problems) - _MAX_PROBLEMS, 0),
            )
        )

    def _add_slots(self, now_ns: int) -> None:
        for slot in self._view.slots():
            message = self.message.slots.add(
                slot=slot.slot,
                node=slot.node,
                device=slot.device,
                state=slot.state,
                reason=cut(slot.reason),
                restarts=slot.restarts,
                capacity=slot.capacity,
                memory_bytes=slot.memory_bytes,
                memory_limit_bytes=slot.memory_limit_bytes,
                batches_in_flight=slot.batches_in_flight,
                pid=slot.pid,
            )
            if slot.busy_ns is not None:
                message.utilisation = self._recent.utilisation(now_ns, slot.slot, slot.capacity, slot.busy_ns)

    def _count_states(self) -> Iterator[None]:
        states: Counter[str] = Counter()
        for i, name in enumerate(self.names, 1):
            served = self._view.served.get(name)
            if served is not None:
                states[state_of(served)] += 1
            if not i % _NAMES_PER_STEP:
                yield
        for state, count in sorted(states.items()):
            self.message.gateway.models_by_state[state] = count

    def _match(self, matching: list[str]) -> Iterator[None]:
        """Put the names into `matching` that any pattern matches, and find those that match nothing."""
        if not self._patterns:
            matching += self.names
            return
        served = self._view.served
        wild = [pattern for pattern in self._patterns if set(pattern) & set("*?[")]
        exact = {pattern for pattern in self._patterns if pattern in served}
        if wild:
            any_of = re.compile("|".join(f"(?:{translate(pattern)})" for pattern in wild))
            for i, name in enumerate(self.names, 1):
                if name in exact or any_of.match(name):
                    matching.append(name)
                if not i % _NAMES_PER_STEP:
                    yield
        else:
            matching += sorted(exact)
        self.missing = [p for p in self._patterns if p not in served and p not in wild]
        if not matching:
            self.missing += wild

    def _add_models(self, matching: Sequence[str], now_ns: int) -> Iterator[None]:
        view, message = self._view, self.message
        table = view.table()
        devices = {slot.slot: slot.device for slot in message.slots}
        accounts: Accounts = {(account.model, account.version): account for account in view.accounts}
        size_bytes = message.ByteSize()
        rest = [name for name in matching if name > self._after]
        for i, name in enumerate(rest):
            served = view.served.get(name)
            if served is None:
                continue  # it went meanwhile
            model = model_status(served, table.models.get(name), devices, accounts, self._recent, now_ns)
            size_bytes += model.ByteSize() + 8
            message.models.append(model)
            if i + 1 < len(rest) and (len(message.models) >= self._limit or size_bytes >= MAX_PAGE_BYTES):
                message.next_page = name
                return
            if not len(message.models) % _MODELS_PER_STEP:
                yield

"""What a check makes of a gateway's figures: pure, from a reading to a line."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from crossgate.cli.check_reading import Figures, Reading

_FAULTS: Final = ("unavailable", "expired", "failed", "bug")
_DAY_S: Final = 86_400


class State(IntEnum):
    """The exit status of a plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True)
class Limit:
    """Requests in a queue, or with `share` a per cent of what fits."""

    amount: float
    share: bool

    @classmethod
    def parse(cls, option: str, text: str) -> Limit:
        """Raises ValueError where it is none."""
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?%?", text) is None:
            raise ValueError(
                f"{option} {text}: expected a number of requests such as 50, or a share such as 50%"
            )
        share = text.endswith("%")
        amount = float(text.removesuffix("%"))
        if share and amount > 100:
            raise ValueError(f"{option} {text}: a queue cannot be fuller than 100%")
        return cls(amount, share)

    def of(self, room: float) -> float:
        return room * self.amount / 100 if self.share else self.amount


@dataclass(frozen=True)
class Queue:
    model: str
    depth: float
    room: float

    @property
    def fill(self) -> float:
        return self.depth / self.room if self.room else 0.0


@dataclass(frozen=True)
class Finding:
    state: State
    text: str


@dataclass(frozen=True)
class Verdict:
    """`figures` are perfdata, each as `label=value;warning;critical;minimum;maximum`."""

    state: State
    texts: tuple[str, ...]
    figures: tuple[str, ...]

    def line(self) -> str:
        """One line: neither a line break nor a bar of a message can break it."""
        said = re.sub(r"[\s|]+", " ", "; ".join(self.texts)).strip()
        return f"CROSSGATE {self.state.name}: {said}" + (
            f" |{' '.join(self.figures)}" if self.figures else ""
        )


def judge(reading: Reading, model: str, warning: Limit, critical: Limit) -> Verdict:
    """Return what is the matter, the worst first. Only `model` counts, where it is named.

    Raises:
        ValueError: there is no such model, or the limits are the wrong way round.
    """
    figures = reading.figures
    queue = _fullest(figures, model)
    warn, crit = warning.of(queue.room), critical.of(queue.room)
    if warn > crit:
        raise ValueError(f"--warning ({warn:g} requests) is above --critical ({crit:g} requests)")
    found = sorted(
        (*_of_gateway(reading), *_of_models(figures, model), *_of_queue(queue, warn, crit)),
        key=lambda each: -each.state,
    )
    state = found[0].state if found else State.OK
    texts = tuple(each.text for each in found) or (_all_well(figures, model, queue),)
    return Verdict(state, texts, _perfdata(figures, model, queue, warn, crit))


def _fullest(figures: Figures, model: str) -> Queue:
    room = {each.labels["model"]: each.value for each in figures.of("crossgate_queue_limit")}
    queues = [
        Queue(name, each.value, room.get(name, 0.0))
        for each in figures.of("crossgate_queue_depth")
        if (name := each.labels["model"]) == model or not model
    ]
    if model and not queues:
        from gateway.config.wording import did_you_mean, quote

        known = [each.labels["model"] for each in figures.of("crossgate_queue_depth")]
        raise ValueError(f"there is no figure of a model {quote(model)}{did_you_mean(model, known)}")
    return max(queues, key=lambda each: (each.fill, each.depth), default=Queue("", 0.0, 0.0))


def _of_gateway(reading: Reading) -> Iterator[Finding]:
    figures = reading.figures
    if not reading.readiness.ready:
        yield Finding(
            State.CRITICAL, f"not ready: {', '.join(reading.readiness.reasons) or 'no reason given'}"
        )
    yield from (Finding(State.WARNING, note) for note in reading.readiness.notes)
    workers = figures.of("crossgate_worker_up")
    down = [each.labels["worker"] for each in workers if not each.value]
    if down:
        state = State.CRITICAL if len(down) == len(workers) else State.WARNING
        yield Finding(state, f"worker down: {', '.join(down)}")
    if away_s := figures.total("crossgate_config_away_seconds"):
        yield Finding(State.WARNING, f"configuration not followed for {away_s:.0f} s")
    if problems := figures.total("crossgate_config_problems"):
        yield Finding(State.WARNING, f"{problems:.0f} documents are not valid")
    for each in figures.of("crossgate_certificate_expiry_timestamp_seconds"):
        left_days = (each.value - time.time()) / _DAY_S  # the certificate's clock is the wall's
        if left_days < 14:
            state = State.CRITICAL if left_days < 2 else State.WARNING
            yield Finding(state, f"certificate for {each.labels['use']} ends in {left_days:.1f} days")


def _of_models(figures: Figures, model: str) -> Iterator[Finding]:
    ready: dict[str, list[bool]] = {}  # {model: one per version}
    for each in figures.of("crossgate_model_ready"):
        ready.setdefault(each.labels["model"], []).append(bool(each.value))
    for name, versions in ready.items():
        if model and name != model:
            continue
        if not any(versions):
            yield Finding(State.CRITICAL if model else State.WARNING, f"no version of {name} is ready")
        elif not all(versions):
            yield Finding(State.WARNING, f"{versions.count(False)} versions of {name} are not ready")


def _of_queue(queue: Queue, warn: float, crit: float) -> Iterator[Finding]:
    if not queue.model or not queue.room:
        return
    if queue.depth >= warn:
        state = State.CRITICAL if queue.depth >= crit else State.WARNING
        yield Finding(state, f"queue of {queue.model} has {queue.depth:g} of {queue.room:g}")


def _all_well(figures: Figures, model: str, queue: Queue) -> str:
    what = model or f"{figures.total('crossgate_models'):.0f} models"
    return f"{what} ready, longest queue {queue.depth:g} of {queue.room:g}"


def _perfdata(figures: Figures, model: str, queue: Queue, warn: float, crit: float) -> tuple[str, ...]:
    of = {"model": model} if model else {}
    workers = figures.of("crossgate_worker_up")
    faults = sum(figures.total("crossgate_requests_total", outcome=each, **of) for each in _FAULTS)
    return (
        f"queue={queue.depth:.0f};{warn:.0f};{crit:.0f};0",
        f"requests={figures.total('crossgate_requests_total', **of):.0f}c;;;0",
        f"faults={faults:.0f}c;;;0",
        f"workers={sum(each.value for each in workers):.0f};;;0;{len(workers)}",
        f"restarts={figures.total('crossgate_worker_restarts_total'):.0f}c;;;0",
    )

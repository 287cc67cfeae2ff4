"""Two operators, any interleaving, a connection that breaks: nothing committed is lost."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.change import DocumentChange
from gateway.config.difference import canonical
from gateway.config.kinds import model_name
from gateway.config.ledger import Ledger
from gateway.config.meanwhile import ChangedMeanwhile
from gateway.config.refusal import ChangeRefused
from gateway.config.store.local import open_local
from gateway.config.transaction import Author

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from ledger_stores import BreakingStore

MODELS = tuple(map(model_name, ("a", "b")))
OPERATORS = ("anna", "bert")

RUN_TIMEOUT = st.integers(1, 4)
ACTIONS = st.one_of(
    st.tuples(st.just("read"), st.sampled_from(MODELS)),
    st.tuples(st.just("put"), st.lists(st.sampled_from(MODELS), min_size=1, unique=True), RUN_TIMEOUT),
    st.tuples(st.just("delete"), st.sampled_from(MODELS)),
    st.tuples(st.just("amend"), st.sampled_from(MODELS), st.sampled_from(["required", "retry"])),
    st.tuples(st.just("override"), st.sampled_from(MODELS), RUN_TIMEOUT),
    st.tuples(st.just("end"), st.sampled_from(MODELS)),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(OPERATORS),
        ACTIONS,
        st.sampled_from([None, None, None, "lost", "unanswered", "late"]),
    ),
    max_size=25,
)


class Operator:
    """Changes documents from what it read last, which may be old."""

    def __init__(self, name, store):
        self.author = Author(name)
        self.store = BreakingStore(store)
        self.ledger = Ledger(self.store)
        self.read = {}  # {model: Stored or None, as it was read last}

    async def act(self, action, breaking):
        """Return the documents that were committed, {model: data}; {} where nothing was."""
        self.store.before = [breaking]
        try:
            return await self._act(*action)
        except (ChangedMeanwhile, ChangeRefused):
            return {}

    async def _act(self, what, subject, value=None):
        match what:
            case "read":
                self.read[subject] = await self.ledger.read(subject)
                return {}
            case "put":
                documents = {
                    name: {"model": name.name, "limits": {"run_timeout_ms": value}} for name in subject
                }
                await self.ledger.commit(
                    [
                        DocumentChange(name, data, self.read.get(name), "apply")
                        for name, data in documents.items()
                    ],
                    self.author,
                )
                return documents
            case "delete":
                await self.ledger.commit(
                    [DocumentChange(subject, None, self.read.get(subject), "delete")], self.author
                )
                return {subject: None}
            case "amend":
                fields = {"required": True} if value == "required" else {"retry": "never"}
                done = await self.ledger.amend(subject, lambda data: data | fields, self.author, "set")
                return {subject: ...} if done is not None else {}
            case "override":
                await self.ledger.override(subject, {"limits": {"run_timeout_ms": value}}, 60, self.author)
                return {subject: ...}
            case _:
                standing = await self.ledger.standing(subject)
                await self.ledger.end_overrides(
                    subject, [each.id for each in standing.overrides], self.author
                )
                return {subject: ...}


async def play(path, steps):
    async with open_local(path) as store:
        operators = {name: Operator(name, store) for name in OPERATORS}
        committed = {name: [] for name in MODELS}  # {model: (operator, data or ... where that follows)}
        for who, action, breaking in steps:
            for name, data in (await operators[who].act(action, breaking)).items():
                committed[name].append((who, data))
        ledger = Ledger(store)
        for name in MODELS:
            history = [recorded.entry for recorded in await ledger.history(name)]
            assert [each.generation for each in history] == list(range(1, len(history) + 1))
            assert [each.by for each in history] == [who for who, _ in committed[name]]
            for each, (_, data) in zip(history, committed[name], strict=True):
                if data is not ...:
                    assert canonical(each.document) == canonical(data)
            standing = await ledger.standing(name)
            there = standing.stored.data if standing.stored is not None else None
            assert there == (history[-1].document if history else None)
            in_force = set()
            for each in history:
                if each.action == "override":
                    in_force.update(each.overrides)
                else:
                    in_force.difference_update(each.overrides)
                if each.document is None:
                    in_force.clear()
            assert {each.id for each in standing.overrides} == in_force


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_no_committed_change_is_lost_and_history_folds_to_the_documents(steps):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder) / "store.db", steps))


@pytest.mark.slow
async def test_operators_at_once_lose_nothing(tmp_path):
    """Here the order is the event loop's, with commits of several processes' worth in flight together."""
    (name,) = MODELS[:1]
    async with open_local(tmp_path / "one.db") as one, open_local(tmp_path / "one.db") as other:
        ledgers = [Ledger(one), Ledger(other)]
        await ledgers[0].commit(
            [DocumentChange(name, {"model": "a", "labels": {}}, None, "apply")], Author("x")
        )

        async def label(i):
            await ledgers[i % 2].amend(
                name, lambda data: data | {"labels": data["labels"] | {f"l{i}": "1"}}, Author(f"{i}"), "set"
            )

        async with asyncio.TaskGroup() as group:
            for i in range(12):
                group.create_task(label(i))
        document = (await ledgers[0].read(name)).data
        assert set(document["labels"]) == {f"l{i}" for i in range(12)}
        history = [recorded.entry for recorded in await ledgers[1].history(name)]
        assert [each.generation for each in history] == list(range(1, 14))
        assert {each.by for each in history[1:]} == {str(i) for i in range(12)}

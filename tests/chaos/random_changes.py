"""An operator who never stops: random changes of documents, through the ledger and past it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from stored_state import Routing, is_valid

from gateway.config.change import DocumentChange, OutcomeUnknown
from gateway.config.kinds import model_name
from gateway.config.ledger import Ledger
from gateway.config.meanwhile import ChangedMeanwhile
from gateway.config.refusal import ChangeRefused
from gateway.config.store.store import CommitUnclear, LeaseGone, Put, StoreAway
from gateway.config.transaction import Author

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from gateway.config.change import Committed
    from gateway.config.store.store import Store

AUTHOR = Author("chaos", "because")
LONGEST_PAUSE_S = 0.15


class RandomChanges:
    """`steady` models are always there; those that are `passing` come and go. What became of each change is
    in `outcomes`; `committed` has those that the ledger says were made.
    """

    def __init__(
        self,
        store: Store,
        sources: Mapping[str, str],  # {version: URL}
        steady: Sequence[str],
        passing: Sequence[str],
        random: Random,
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.committed: list[Committed] = []
        # {model: the routing of every valid document that it may have had since the last `settled`}
        self.good: defaultdict[str, list[Routing]] = defaultdict(list)
        self._overriding: dict[str, dict[str, Any]] = {}  # {model: the split of its last override}
        self._store = store
        self._ledger = Ledger(store)
        self._sources = sources
        self._steady = tuple(steady)
        self._passing = tuple(passing)
        self._random = random

    async def begin(self) -> None:
        """Write a valid document of each model."""
        for model in (*self._steady, *self._passing):
            await self._write_whole(model)

    async def run(self, until: asyncio.Event) -> None:
        """Change something, again and again."""
        kinds = {
            self._whole: 3,
            self._weights: 6,
            self._raw: 2,
            self._several: 2,
            self._override: 2,
            self._invalid: 1,
            self._delete: 1,
        }
        while not until.is_set():
            (kind,) = self._random.choices(list(kinds), list(kinds.values()))
            await self._tried(kind)
            await asyncio.sleep(self._random.uniform(0.0, LONGEST_PAUSE_S))

    async def settled(self) -> None:
        """Every gateway has what is stored: put right what is invalid, so that all know one last good state.
        Raises StoreAway.
        """
        for model in (*self._steady, *self._passing):
            stored = await self._ledger.read(model_name(model))
            if stored is not None and not is_valid(stored.data):
                await self._write_whole(model)
                stored = await self._ledger.read(model_name(model))
            if stored is not None and stored.data is not None and is_valid(stored.data):
                self.good[model].clear()
                self._remember(model, stored.data)

    # One change of each kind.

    async def _tried(self, kind: Any) -> None:
        try:
            done = await kind()
        except (OutcomeUnknown, CommitUnclear):
            self.outcomes["unclear"] += 1
        except (StoreAway, LeaseGone):
            self.outcomes["away"] += 1
        except (ChangeRefused, ChangedMeanwhile):
            self.outcomes["refused"] += 1  # of a document that is invalid now, for example
        else:
            self.outcomes["applied" if done else "nothing"] += 1

    async def _whole(self) -> bool:
        await self._write_whole(self._any())
        return True

    async def _write_whole(self, model: str) -> None:
        document = self._document(model)
        self._remember(model, document)
        await self._commit({model: document})

    async def _weights(self) -> bool:
        """Change weights and batching alone."""
        model = self._random.choice(self._steady)

        def amended(document: dict[str, Any]) -> dict[str, Any]:
            split = {target: self._random.randrange(1, 100) for target in document["traffic"]["split"]}
            changed = document | {"traffic": {"split": split}, "batching": self._batching()}
            self._remember(model, changed)
            return changed

        done = await self._ledger.amend(model_name(model), amended, AUTHOR, "set")
        if done is not None:
            self.committed.append(done)
        return done is not None

    async def _raw(self) -> bool:
        """Write past the ledger."""
        model = self._any()
        document = self._document(model)
        self._remember(model, document)
        await self._store.commit([Put(f"models/{model}", json.dumps(document).encode())])
        return True

    async def _several(self) -> bool:
        documents = {model: self._document(model) for model in self._random.sample(self._steady, 2)}
        for model, document in documents.items():
            self._remember(model, document)
        await self._commit(documents)
        return True

    async def _override(self) -> bool:
        """For a second or two; one at a time of each model."""
        model = self._random.choice(self._steady)
        standing = await self._ledger.standing(model_name(model))
        if standing.overrides or standing.stored is None or not is_valid(standing.stored.data):
            return False
        document = standing.stored.data
        split = {target: self._random.randrange(1, 100) for target in document["traffic"]["split"]}
        self._overriding[model] = split
        self._remember(model, document)
        for_s = self._random.uniform(1.0, 2.0)
        patch = {"traffic": {"split": split}, "batching": self._batching()}
        done = await self._ledger.override(model_name(model), patch, for_s, AUTHOR)
        self.committed.append(done.committed)
        return True

    async def _invalid(self) -> bool:
        """Break a document past the ledger, which would refuse to; not one under an override."""
        model = self._random.choice(self._steady)
        standing = await self._ledger.standing(model_name(model))
        if standing.overrides or standing.stored is None:
            return False
        document = self._document(model)
        wrong = self._random.choice(
            [
                b'{"model": "' + model.encode(),
                json.dumps(document | {"batchign": {}}).encode(),
                json.dumps(document | {"labels": {"stable": "77"}}).encode(),
            ]
        )
        await self._store.commit([Put(f"models/{model}", wrong)])
        return True

    async def _delete(self) -> bool:
        model = self._random.choice(self._passing)
        base = await self._ledger.read(model_name(model))
        if base is None:
            return False
        done = await self._ledger.commit([DocumentChange(model_name(model), None, base, "delete")], AUTHOR)
        self.committed.append(done)
        self.good[model].clear()
        return True

    async def _commit(self, documents: Mapping[str, dict[str, Any]]) -> None:
        changes = [
            DocumentChange(model_name(model), document, await self._ledger.read(model_name(model)), "apply")
            for model, document in documents.items()
        ]
        self.committed.append(await self._ledger.commit(changes, AUTHOR))

    # Documents.

    def _any(self) -> str:
        return self._random.choice((*self._steady, *self._passing))

    def _document(self, model: str) -> dict[str, Any]:
        """Two or three versions; mostly the same two, since what is new is to be loaded first."""
        versions = ["1", "2"]
        if self._random.random() < 0.3:
            versions.append(self._random.choice(sorted(self._sources.keys() - {"1", "2"})))
        stable, canary = self._random.sample(versions, 2)
        return {
            "model": model,
            "versions": {version: {"source": self._sources[version]} for version in versions},
            "labels": {"stable": stable, "canary": canary},
            "traffic": {
                "split": {
                    "stable": self._random.randrange(1, 100),
                    "canary": self._random.choice((0, self._random.randrange(1, 100))),
                }
            },
            "instances": [{"runtime": "onnxruntime", "device": "cpu", "threads": 1}],
            "batching": self._batching(),
            "warm_up": {"runs": 0},
        }

    def _batching(self) -> dict[str, Any]:
        return {
            "batchable": True,
            "max_batch_size": self._random.randrange(4, 64),
            "max_queue_delay_us": self._random.choice((0, 200, 1000)),
        }

    def _remember(self, model: str, document: Mapping[str, Any]) -> None:
        self.good[model].append(Routing.of(document))
        if model in self._overriding:
            overridden = {**document, "traffic": {"split": self._overriding[model]}}
            self.good[model].append(Routing.of(overridden))

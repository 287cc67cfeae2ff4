"""The ledger over a real local store."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from gateway.config.change import DocumentChange, LedgerBusy, OutcomeUnknown, TooManyDocuments
from gateway.config.kinds import GATEWAY, DocumentName, model_name
from gateway.config.ledger import Ledger
from gateway.config.meanwhile import ChangedMeanwhile
from gateway.config.override import MARGIN_S
from gateway.config.refusal import MAX_DOCUMENT_BYTES, MAX_OVERRIDES, ChangeRefused
from gateway.config.store.local import open_local
from gateway.config.store.store import Delete, LeaseGone, Put, Span
from gateway.config.transaction import Author

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from ledger_stores import BreakingStore

DIGITS = model_name("digits")
READERS = DocumentName("access", "readers")
ANNA, BERT = Author("anna@desk", "raise canary"), Author("bert@phone", "hotfix")
DIGEST, OTHER_DIGEST = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
EVERYTHING = Span("!", "~")


@pytest.fixture
async def store(tmp_path):
    async with open_local(tmp_path / "store.db") as opened:
        yield BreakingStore(opened)


@pytest.fixture
def ledger(store):
    return Ledger(store, now=lambda: datetime(2026, 11, 23, 12, tzinfo=UTC))


def document(**fields):
    return {"model": "digits", **fields}


def split(stable, canary, **fields):
    labels = {"stable": "1", "canary": "2"}
    return document(labels=labels, traffic={"split": {"stable": stable, "canary": canary}}, **fields)


async def put(ledger, data, *, name=DIGITS, author=ANNA, action="apply"):
    """Make `data` the document from what is there now."""
    return await ledger.commit([DocumentChange(name, data, await ledger.read(name), action)], author)


def versions(**digests):
    """Versions as a document has them; a digest of None is left out."""
    return {
        version.removeprefix("v"): {"source": "file:///m"} | ({"digest": digest} if digest else {})
        for version, digest in digests.items()
    }


async def test_a_commit_writes_documents_and_history_in_one_revision(ledger, store):
    iris = model_name("iris")
    committed = await ledger.commit(
        [
            DocumentChange(DIGITS, split(95, 5), None, "apply"),
            DocumentChange(iris, {"model": "iris"}, None, "apply"),
            DocumentChange(GATEWAY, {"log_level": "debug"}, None, "apply"),
            DocumentChange(READERS, {"access": "readers", "anonymous": True}, None, "apply"),
        ],
        ANNA,
    )
    snapshot = await store.read(EVERYTHING)
    assert {entry.key for entry in snapshot.entries} == {
        "models/digits",
        "models/iris",
        "policies/gateway",
        "access/readers",
        "history/digits/0000000001",
        "history/iris/0000000001",
        "history/_policies/gateway/0000000001",
        "history/_access/readers/0000000001",
    }
    assert {entry.revision for entry in snapshot.entries} == {committed.revision}
    assert set(committed.generations.values()) == {1}
    (recorded,) = await ledger.history(DIGITS)
    assert recorded.entry.document == split(95, 5)
    assert (recorded.entry.by, recorded.entry.why) == ("anna@desk", "raise canary")
    assert (recorded.entry.at, recorded.entry.action) == ("2026-11-23T12:00:00+00:00", "apply")
    assert (recorded.entry.change, recorded.revision) == (committed.change, committed.revision)


async def test_values_are_kept_as_they_were_written_with_sorted_keys(ledger, store):
    await put(ledger, {"retry": "auto", "model": "digits", "batching": {}})
    assert (await store.get("models/digits")).value == b'{"batching":{},"model":"digits","retry":"auto"}'


async def test_generations_go_on_through_deletion_and_return(ledger):
    for data in (document(), None, document(retry="never")):
        committed = await put(ledger, data)
    assert committed.generations[DIGITS] == 3
    history = await ledger.history(DIGITS)
    assert [each.entry.generation for each in history] == [1, 2, 3]
    assert [each.entry.document for each in history] == [document(), None, document(retry="never")]
    assert [each.entry.based_on for each in history] == [0, 1, 2]


async def test_history_of_a_model_is_not_mixed_with_that_of_one_with_a_longer_name(ledger):
    for name in ("digits", "digits-2", "digits.2", "policies", "access"):
        await put(ledger, {"model": name}, name=model_name(name))
    await put(ledger, {"log_level": "info"}, name=GATEWAY)
    for name in (DIGITS, model_name("policies"), model_name("access"), GATEWAY):
        assert len(await ledger.history(name)) == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (document(batchin={}), ("batchin", 'did you mean "batching"')),
        (document(schema="crossgate/v2"), ("schema", "not supported by this release")),
        ({"model": "other"}, ('expected "digits", under which it is kept',)),
        (
            document(inputs=[{"name": "x" * MAX_DOCUMENT_BYTES, "datatype": "FP32", "shape": []}]),
            ("at most",),
        ),
    ],
)
async def test_what_is_wrong_is_refused_with_its_path_and_nothing_is_written(ledger, store, data, words):
    good = DocumentChange(model_name("iris"), {"model": "iris"}, None, "apply")
    with pytest.raises(ChangeRefused) as refused:
        await ledger.commit([good, DocumentChange(DIGITS, data, None, "apply")], ANNA)
    for word in ("digits: ", *words):
        assert word in str(refused.value)
    assert (await store.read(EVERYTHING)).entries == ()


async def test_every_refused_document_is_listed(ledger):
    changes = [
        DocumentChange(model_name(name), {"model": name, "retry": "often"}, None, "apply")
        for name in ("a", "b")
    ]
    with pytest.raises(ChangeRefused, match=r"(?s)a: retry: .*b: retry: ") as refused:
        await ledger.commit(changes, ANNA)
    assert [str(each.name) for each in refused.value.refusals] == ["a", "b"]
    assert await ledger.check(changes) == refused.value.refusals


async def test_sixty_documents_change_at_once_and_more_are_refused(ledger):
    def changes(count):
        return [DocumentChange(model_name(f"m{i}"), {"model": f"m{i}"}, None, "apply") for i in range(count)]

    with pytest.raises(TooManyDocuments, match="61 documents"):
        await ledger.commit(changes(61), ANNA)
    committed = await ledger.commit(changes(60), ANNA)
    assert len(committed.generations) == 60
    assert len((await ledger.read_all()).documents) == 60


async def test_what_somebody_else_changed_meanwhile_is_shown_and_not_overwritten(ledger):
    await put(ledger, split(95, 5))
    base = await ledger.read(DIGITS)
    await put(ledger, split(92, 8), author=BERT, action="set")
    with pytest.raises(ChangedMeanwhile) as changed:
        await ledger.commit([DocumentChange(DIGITS, split(90, 10), base, "apply")], ANNA)
    (meanwhile,) = changed.value.documents
    assert meanwhile.merge.overlaps == ("traffic.split.canary", "traffic.split.stable")
    text = str(changed.value)
    assert "digits was changed meanwhile" in text
    assert "generation 2" in text
    assert "set by bert@phone" in text
    assert "hotfix" in text
    assert "~ traffic.split.canary: 5 -> 8" in text
    assert "~ traffic.split.canary: 5 -> 10" in text
    assert (await ledger.read(DIGITS)).data == split(92, 8)


async def test_changes_of_other_fields_are_said_to_merge(ledger):
    await put(ledger, split(95, 5))
    base = await ledger.read(DIGITS)
    await put(ledger, split(95, 5, retry="never"), author=BERT)
    with pytest.raises(ChangedMeanwhile, match="of other fields: the two go together") as changed:
        await ledger.commit([DocumentChange(DIGITS, split(90, 10), base, "apply")], ANNA)
    merged = changed.value.documents[0].merge
    assert merged.overlaps == ()
    assert merged.document == split(90, 10, retry="never")


async def test_a_document_that_came_or_went_meanwhile_is_a_conflict(ledger):
    await put(ledger, document(), author=BERT)
    with pytest.raises(ChangedMeanwhile, match=r"\+ model"):
        await ledger.commit([DocumentChange(DIGITS, document(retry="never"), None, "apply")], ANNA)
    base = await ledger.read(DIGITS)
    await put(ledger, None, author=BERT)
    with pytest.raises(ChangedMeanwhile, match="- model"):
        await ledger.commit([DocumentChange(DIGITS, document(retry="never"), base, "apply")], ANNA)


async def test_a_write_between_check_and_commit_is_noticed(ledger, store):
    await put(ledger, document())
    other = Ledger(store._store)
    store.before = [lambda: put(other, document(retry="never"), author=BERT)]
    with pytest.raises(ChangedMeanwhile, match="bert@phone"):
        await put(ledger, document(required=True))


async def test_a_write_past_the_ledger_between_check_and_commit_is_noticed(ledger, store):
    await put(ledger, document())
    value = Put("models/digits", b'{"model": "digits", "retry": "never"}')
    store.before = [lambda: store._store.commit([value])]
    with pytest.raises(ChangedMeanwhile, match="by somebody who left no history"):
        await put(ledger, document(required=True))
    assert (await ledger.read(DIGITS)).data == document(retry="never")


async def test_amend_keeps_what_others_changed_of_other_fields(ledger, store):
    await put(ledger, document())
    other = Ledger(store._store)
    store.before = [lambda: put(other, document(retry="never"), author=BERT)]
    committed = await ledger.amend(DIGITS, lambda data: data | {"required": True}, ANNA, "set")
    assert committed.generations[DIGITS] == 3
    assert (await ledger.read(DIGITS)).data == document(retry="never", required=True)


async def test_amend_stops_where_others_changed_the_same_field(ledger, store):
    await put(ledger, document())
    other = Ledger(store._store)
    store.before = [lambda: put(other, document(trace={"ratio": 0.5}), author=BERT)]
    with pytest.raises(ChangedMeanwhile, match=r"trace\.ratio"):
        await ledger.amend(DIGITS, lambda data: data | {"trace": {"ratio": 1}}, ANNA, "set")
    assert (await ledger.read(DIGITS)).data == document(trace={"ratio": 0.5})


async def test_amend_that_changes_nothing_writes_nothing(ledger):
    await put(ledger, document())
    assert await ledger.amend(DIGITS, dict, ANNA, "set") is None
    assert len(await ledger.history(DIGITS)) == 1


async def test_amend_gives_up_where_others_never_stop(ledger, store):
    await put(ledger, document())
    other = Ledger(store._store)
    limits = iter(range(1, 1000))

    async def interfere():
        await put(other, document(limits={"run_timeout_ms": next(limits)}), author=BERT)

    store.before = [interfere] * 100
    with pytest.raises(LedgerBusy, match="digits"):
        await ledger.amend(DIGITS, lambda data: data | {"required": True}, ANNA, "set")


async def test_amend_of_nothing_is_refused_unless_it_may_create(ledger):
    with pytest.raises(ChangeRefused, match="is not there"):
        await ledger.amend(GATEWAY, lambda data: data | {"log_level": "debug"}, ANNA, "set")
    await ledger.amend(GATEWAY, lambda data: data | {"log_level": "debug"}, ANNA, "set", create=True)
    assert (await ledger.read(GATEWAY)).data == {"log_level": "debug"}


@pytest.mark.parametrize("how", ["lost", "unanswered", "late"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_change_is_made_once_where_the_connection_breaks(ledger, store, how, times):
    await put(ledger, document())
    store.before = [how] * times
    committed = await put(ledger, document(retry="never"))
    history = await ledger.history(DIGITS)
    assert [each.entry.generation for each in history] == [1, 2]
    assert (history[1].revision, history[1].entry.change) == (committed.revision, committed.change)
    assert (await store.get("models/digits")).revision == committed.revision


@pytest.mark.parametrize("how", ["lost", "unanswered", "late"])
async def test_an_override_is_put_once_where_the_connection_breaks(ledger, store, how):
    await put(ledger, document())
    store.before = [how]
    overridden = await ledger.override(DIGITS, {"retry": "never"}, 60, ANNA)
    standing = await ledger.standing(DIGITS)
    assert [each.id for each in standing.overrides] == [overridden.id]
    assert standing.generation == 2
    store.before = [how]
    before = await ledger.read(DIGITS)
    ended = await ledger.end_overrides(DIGITS, [overridden.id], BERT)
    after = await ledger.read(DIGITS)
    # whoever reads it later finds the revision at which the effective document changed
    assert (after.data, after.revision) == (before.data, ended.revision)
    assert ended.generations[DIGITS] == 3
    assert (await ledger.standing(DIGITS)).overrides == ()


async def test_a_change_that_is_lost_while_another_operator_goes_first_is_a_conflict(ledger, store):
    await put(ledger, document())
    other = Ledger(store._store)
    store.before = ["lost", lambda: put(other, document(retry="never"), author=BERT)]
    with pytest.raises(ChangedMeanwhile, match="bert@phone"):
        await put(ledger, document(retry="auto"))


async def test_an_outcome_that_cannot_be_found_out_says_which_change_it_was(ledger, store):
    await put(ledger, document())
    store.before = ["unanswered"]
    store.away_after = store.commits + 1
    with pytest.raises(OutcomeUnknown, match="crossgate history digits") as unknown:
        await put(ledger, document(retry="never"))
    store.away_after = None
    assert (await ledger.history(DIGITS))[-1].entry.change == unknown.value.change


async def test_a_changed_digest_is_refused_also_of_a_version_that_was_gone(ledger):
    await put(ledger, document(versions=versions(v1=DIGEST, v2=None)))
    with pytest.raises(
        ChangeRefused, match=r"versions\.1\.digest: expected sha256:a+ as before, got sha256:b+"
    ):
        await put(ledger, document(versions=versions(v1=OTHER_DIGEST)))
    await put(ledger, document(versions=versions(v2=None)))
    await put(ledger, None)
    for digest in (OTHER_DIGEST, None):
        with pytest.raises(ChangeRefused, match=r"versions\.1\.digest: expected sha256:a+ as before"):
            await put(ledger, document(versions=versions(v1=digest)))
    await put(ledger, document(versions=versions(v1=DIGEST, v2=OTHER_DIGEST)))


async def test_a_frozen_model_does_not_change_and_others_do(ledger):
    await put(ledger, document())
    await put(ledger, {"frozen": {"dig*": "the fair"}}, name=GATEWAY)
    for change in (
        put(ledger, document(retry="never")),
        put(ledger, None),
        ledger.override(DIGITS, {"retry": "never"}, 60, ANNA),
    ):
        with pytest.raises(ChangeRefused, match="digits: is frozen: the fair"):
            await change
    await put(ledger, {"model": "iris"}, name=model_name("iris"))
    await put(ledger, {}, name=GATEWAY)
    await put(ledger, document(retry="never"))


async def test_a_model_frozen_between_check_and_commit_does_not_change(ledger, store):
    await put(ledger, document())
    other = Ledger(store._store)
    store.before = [lambda: put(other, {"frozen": {"*": "night"}}, name=GATEWAY, author=BERT)]
    with pytest.raises(ChangeRefused, match="is frozen: night"):
        await put(ledger, document(retry="never"))


async def test_expiry_ends_an_override_of_a_frozen_model_and_an_operator_does_not(ledger):
    await put(ledger, document())
    overridden = await ledger.override(DIGITS, {"retry": "never"}, 60, ANNA)
    await put(ledger, {"frozen": {"*": "night"}}, name=GATEWAY)
    with pytest.raises(ChangeRefused, match="is frozen: night"):
        await ledger.end_overrides(DIGITS, [overridden.id], ANNA)
    await ledger.end_overrides(DIGITS, [overridden.id], Author("gateway-1"), "expiry")
    assert (await ledger.history(DIGITS))[-1].entry.action == "expiry"


async def test_an_invalid_gateway_document_stops_models_and_can_be_corrected(ledger, store):
    await store.commit([Put("policies/gateway", b'{"frozn": {}}')])
    with pytest.raises(
        ChangeRefused, match=r"(?s)policies/gateway: frozn.*did you mean \"frozen\".*not known"
    ):
        await put(ledger, document())
    await put(ledger, {}, name=GATEWAY)
    await put(ledger, document())


async def test_an_override_lives_under_a_lease_longer_than_it_is_meant_to(ledger, store):
    await put(ledger, split(95, 5))
    patch = {"traffic": {"split": {"canary": 50}}}
    overridden = await ledger.override(DIGITS, patch, 900, ANNA)
    standing = await ledger.standing(DIGITS)
    (override,) = standing.overrides
    assert override.id == overridden.id
    assert (override.override.patch, override.override.for_s, override.override.by) == (
        patch,
        900,
        "anna@desk",
    )
    assert 900 < await store.remaining_s(override.lease) <= 900 + MARGIN_S
    assert standing.effective == split(95, 50)
    assert standing.stored.data == split(95, 5)
    last = (await ledger.history(DIGITS))[-1].entry
    assert (last.action, last.overrides, last.document, last.patch) == (
        "override", (overridden.id,), split(95, 5), patch,
    )  # fmt: skip
    assert override.override.change == last.change


async def test_overrides_fold_in_the_order_of_their_revisions(ledger):
    await put(ledger, split(95, 5))
    for canary in (50, 20, 30):
        await ledger.override(DIGITS, {"traffic": {"split": {"canary": canary}}}, 60, ANNA)
    standing = await ledger.standing(DIGITS)
    assert standing.effective["traffic"]["split"]["canary"] == 30
    await ledger.end_overrides(DIGITS, [standing.overrides[-1].id], ANNA)
    assert (await ledger.standing(DIGITS)).effective["traffic"]["split"]["canary"] == 20


@pytest.mark.parametrize(
    ("patch", "for_s", "words"),
    [
        ({"retyr": "never"}, 60, "did you mean"),
        ({"retry": "auto"}, 0.5, "1 s to 30 days"),
        ({"retry": "never"}, 10**9, "1 s to 30 days"),
        ({"retry": "never"}, float("nan"), "1 s to 30 days"),
        ({"model": "digits"}, 60, "would change nothing"),
        ({"versions": {"1": {"digest": OTHER_DIGEST}}}, 60, "as before"),
        ({"model": "other"}, 60, "under which it is kept"),
    ],
)
async def test_a_wrong_override_is_refused_and_leaves_no_lease(ledger, store, patch, for_s, words):
    await put(ledger, document(versions=versions(v1=DIGEST)))
    granted = []
    grant = store._store.grant

    async def noted(ttl_s):
        granted.append(await grant(ttl_s))
        return granted[-1]

    store.grant = noted
    with pytest.raises(ChangeRefused, match=words):
        await ledger.override(DIGITS, patch, for_s, ANNA)
    for lease in granted:
        with pytest.raises(Exception, match="lease"):
            await store.remaining_s(lease)
    assert (await ledger.standing(DIGITS)).overrides == ()


async def test_an_override_whose_lease_is_lost_before_it_is_written_changes_nothing(ledger, store):
    await put(ledger, document())
    grant = store._store.grant

    async def short_lived(ttl_s):
        lease = await grant(ttl_s)
        await store._store.revoke(lease)
        return lease

    store.grant = short_lived
    with pytest.raises(LeaseGone):
        await ledger.override(DIGITS, {"retry": "never"}, 60, ANNA)
    assert (await ledger.standing(DIGITS)).overrides == ()
    assert len(await ledger.history(DIGITS)) == 1


async def test_an_override_of_nothing_is_refused(ledger):
    with pytest.raises(ChangeRefused, match="digits: is not there"):
        await ledger.override(DIGITS, {"retry": "never"}, 60, ANNA)


async def test_a_model_has_a_bounded_number_of_overrides(ledger):
    await put(ledger, split(95, 5))
    for canary in range(MAX_OVERRIDES):
        await ledger.override(DIGITS, {"traffic": {"split": {"canary": canary}}}, 60, ANNA)
    with pytest.raises(ChangeRefused, match="the most"):
        await ledger.override(DIGITS, {"retry": "never"}, 60, ANNA)


async def test_a_document_that_its_overrides_would_break_is_refused(ledger):
    await put(ledger, split(95, 5))
    overridden = await ledger.override(DIGITS, {"labels": {"canary": "3"}}, 60, BERT)
    without = document(versions=versions(v1=None, v2=None), labels={"canary": "2"})
    with pytest.raises(ChangeRefused, match=rf"overrides in force, {overridden.id} \(by bert@phone\)"):
        await put(ledger, without)
    await ledger.end_overrides(DIGITS, [overridden.id], ANNA)
    await put(ledger, without)


async def test_a_deleted_model_takes_its_overrides_with_it(ledger, store):
    await put(ledger, document())
    await ledger.override(DIGITS, {"retry": "never"}, 60, ANNA)
    await put(ledger, None)
    assert (await store.read(Span.folder("overrides"))).entries == ()


async def test_an_override_that_comes_between_does_not_stop_a_change(ledger, store):
    await put(ledger, document())
    other = Ledger(store._store)
    store.before = [lambda: other.override(DIGITS, {"retry": "never"}, 60, BERT)]
    committed = await put(ledger, document(required=True))
    assert committed.generations[DIGITS] == 3
    assert (await ledger.standing(DIGITS)).effective == document(required=True, retry="never")


async def test_an_override_that_is_not_in_force_cannot_be_ended(ledger):
    await put(ledger, document())
    overridden = await ledger.override(DIGITS, {"retry": "never"}, 60, ANNA)
    with pytest.raises(ChangeRefused, match=f'no override "nothing" in force; there is "{overridden.id}"'):
        await ledger.end_overrides(DIGITS, ["nothing"], ANNA)
    await ledger.end_overrides(DIGITS, [overridden.id], ANNA)
    with pytest.raises(ChangeRefused, match="has no override in force"):
        await ledger.end_overrides(DIGITS, [], ANNA)


async def test_what_was_written_past_the_ledger_is_recorded_before_the_next_change(ledger, store):
    await store.commit([Put("models/digits", b'{"model": "digits", "retry": "never"}')])
    await put(ledger, document())
    await store.commit([Delete("models/digits")])
    await put(ledger, document(required=True))
    history = [each.entry for each in await ledger.history(DIGITS)]
    assert [(each.generation, each.action) for each in history] == [
        (1, "found"),
        (2, "apply"),
        (3, "found"),
        (4, "apply"),
    ]
    assert [each.document for each in history] == [
        document(retry="never"),
        document(),
        None,
        document(required=True),
    ]


@pytest.mark.parametrize("value", [b"{", b"[]", b'"x"', b"[" * 100_000, b'{"model": "\xff"}', b"\xff"])
async def test_an_unreadable_value_is_shown_as_such_and_can_be_replaced(ledger, store, value):
    await store.commit([Put("models/digits", value), Put("models/iris", b"{}")])
    holding = await ledger.read_all()
    assert "models/digits" in holding.documents[DIGITS].problem
    assert holding.documents[model_name("iris")].data == {}
    with pytest.raises(ChangeRefused, match="models/digits"):
        await ledger.amend(DIGITS, dict, ANNA, "set")
    await put(ledger, document())
    assert (await ledger.read(DIGITS)).data == document()


async def test_the_oldest_generations_are_deleted_beyond_those_that_are_kept(store):
    ledger = Ledger(store, retained=3)
    for ms in range(1, 8):
        await put(ledger, document(limits={"run_timeout_ms": ms}))
    history = await ledger.history(DIGITS)
    assert [each.entry.generation for each in history] == [5, 6, 7]
    assert history[-1].entry.document == (await ledger.read(DIGITS)).data


@pytest.mark.slow
async def test_fewer_retained_generations_are_reached_within_the_room_of_a_commit(store):
    generous, strict = Ledger(store), Ledger(store, retained=2)
    for ms in range(1, 140):
        await put(generous, document(limits={"run_timeout_ms": ms}))
    await put(strict, document())
    assert len(await strict.history(DIGITS)) == 140 - 126
    await put(strict, document(required=True))
    assert [each.entry.generation for each in await strict.history(DIGITS)] == [140, 141]


async def test_history_holds_what_a_newer_release_says_in_it(ledger, store):
    await put(ledger, document())
    entry = await store.get(DIGITS.history_key(1))
    newer = msgspec.json.decode(entry.value) | {"action": "teleport", "colour": "green"}
    await store.commit([Put(DIGITS.history_key(1), msgspec.json.encode(newer))])
    (recorded,) = await ledger.history(DIGITS)
    assert recorded.entry.action == "teleport"
    assert (await put(ledger, document(required=True))).generations[DIGITS] == 2


async def test_keys_outside_the_grammar_are_named(ledger, store):
    await store.commit(
        [Put("models/a b", b"{}"), Put("policies/gatewy", b"{}"), Put("rollouts/digits", b"{}")]
    )
    assert (await ledger.read_all()).unknown == ("models/a b", "policies/gatewy")

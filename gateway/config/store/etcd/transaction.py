"""A commit as one transaction of etcd's, and what its answer says."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from aetcd import rpc

from gateway.config.store.store import MAX_COMMIT_BYTES, MAX_WRITES, CommitTooLarge, Put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.store.etcd.keyspace import KeySpace
    from gateway.config.store.store import Entry, Expect, Write


def check_size(writes: Sequence[Write], expect: Sequence[Expect]) -> None:
    """Raises CommitTooLarge for what etcd would refuse, and ValueError for a key that is written twice."""
    most = max(len(writes), len(expect))
    if most > MAX_WRITES:
        raise CommitTooLarge(f"{most} writes or expectations in one commit: {MAX_WRITES} are the most")
    size = sum(
        len(write.key.encode(errors="surrogateescape")) + (len(write.value) if isinstance(write, Put) else 0)
        for write in writes
    )
    if size > MAX_COMMIT_BYTES:
        raise CommitTooLarge(
            f"{size} bytes of keys and values in one commit: {MAX_COMMIT_BYTES} are the most"
        )
    twice = [key for key, count in Counter(write.key for write in writes).items() if count > 1]
    if twice:
        raise ValueError(f"a commit writes a key twice: {', '.join(twice)}")


def request_of(keys: KeySpace, writes: Sequence[Write], expect: Sequence[Expect]) -> Any:
    """Where an expectation fails, the same transaction reads all that were expected."""
    return rpc.TxnRequest(
        compare=[
            rpc.Compare(
                result=rpc.Compare.EQUAL,
                target=rpc.Compare.MOD,
                key=keys.encode(each.key),
                mod_revision=each.revision,
            )
            for each in expect
        ],
        success=[_operation(keys, write) for write in writes],
        failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=keys.encode(each.key))) for each in expect],
    )


def found_in(keys: KeySpace, reply: Any, expect: Sequence[Expect]) -> dict[str, Entry | None]:
    """What is not as expected, by a reply that did not succeed: {key: entry, None where there is none}."""
    found: dict[str, Entry | None] = {}
    for each, response in zip(expect, reply.responses, strict=True):
        kvs = response.response_range.kvs
        entry = keys.entry(kvs[0]) if kvs else None
        if (entry.revision if entry else 0) != each.revision:
            found[each.key] = entry
    return found


def _operation(keys: KeySpace, write: Write) -> Any:
    if isinstance(write, Put):
        return rpc.RequestOp(
            request_put=rpc.PutRequest(key=keys.encode(write.key), value=write.value, lease=write.lease)
        )
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=keys.encode(write.key)))

"""`--dry-run`: what a command would write, and what gateways would do then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crossgate.cli.documents_awaiting import effects, model_of
from crossgate.cli.documents_in_force import in_force_lines
from crossgate.cli.documents_plan import Cluster, plan_lines, read_cluster
from crossgate.cli.documents_print import print_differences
from crossgate.cli.documents_session import CommandFailed, Session
from gateway.config.patch import merge_patch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.config.change import DocumentChange
    from gateway.config.holding import Holding
    from gateway.config.kinds import DocumentName
    from gateway.config.standing import Standing
    from gateway.config.stored import Stored


async def print_plan(
    session: Session,
    changes: Sequence[DocumentChange],
    holding: Holding,
    asked: Iterable[DocumentName] = (),
) -> None:
    """Say what would be written and what gateways would do. Of documents that were `asked` for and would not
    change, say where they are not in force. Raises CommandFailed if it would be refused.
    """
    before, after = effects(changes, holding)
    cluster = await read_cluster(session.store)
    for change in changes:
        was = change.base.data if change.base is not None else None
        state = " (new)" if change.base is None else " (deleted)" if change.document is None else ""
        print_differences(f"{change.name}{state}", was, change.document)
        if change.name.kind == "model":
            _print_lines(change.name, before[change.name], after[change.name], change.base, cluster)
    for name in asked:
        stored = holding.documents.get(name)
        if name not in before and stored is not None:
            for line in _in_force(name, stored, cluster):
                print(f"{name}: {line}")
    refusals = await session.ledger.check(changes)
    if refusals:
        raise CommandFailed("it would be refused:\n" + "\n".join(map(str, refusals)))
    print(f"dry run: {len(changes)} document{'' if len(changes) == 1 else 's'} would change")


async def print_override_plan(
    session: Session, standing: Standing, patch: dict[str, Any], for_s: float
) -> None:
    """Say what one override would do."""
    name, before = standing.name, standing.effective
    after = merge_patch(before or {}, patch)
    assert isinstance(after, dict), "a patch is a mapping"
    print_differences(f"{name}, for {for_s:g} s", before, after)
    _print_lines(name, before, after, standing.stored, await read_cluster(session.store))


def _print_lines(
    name: DocumentName,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    stored: Stored | None,
    cluster: Cluster,
) -> None:
    lines = [*plan_lines(model_of(name, before), model_of(name, after), cluster)]
    lines += _in_force(name, stored, cluster)
    for line in lines:
        print(f"  plan: {line}")


def _in_force(name: DocumentName, stored: Stored | None, cluster: Cluster) -> Iterable[str]:
    """What is planned is the way from what is stored; where gateways are elsewhere, theirs is another."""
    if stored is None or name.kind != "model":
        return ()
    return in_force_lines(name.name, stored.revision, cluster)

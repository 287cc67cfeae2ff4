"""Access documents, `access/<name>`: who somebody is, and what they may do. In force while the gateway's
document says `access: enforce`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

from msgspec import Meta, inspect

from gateway.config.document import SCHEMA, Name, Part, Text
from gateway.config.errors import DocumentInvalid, Problem
from gateway.config.structure import Reading
from gateway.config.validation import refuse_other_schema, wrong_name

Action = Literal["infer", "read", "manage"]
TokenDigest = Annotated[
    str,
    Meta(
        pattern=r"^sha256:[0-9a-f]{64}\Z",
        description="sha256: and 64 lower-case hex digits, the digest of a bearer token",
    ),
]


class Permission(Part, frozen=True):
    """`infer` is inference, `read` what is said about models, `manage` loading and unloading them."""

    models: Annotated[tuple[Text, ...], Meta(min_length=1)]  # names, with shell wildcards
    actions: Annotated[tuple[Action, ...], Meta(min_length=1)] = ("infer", "read")

    def covers(self, model: str, action: Action) -> bool:
        return action in self.actions and any(fnmatchcase(model, pattern) for pattern in self.models)


class AccessDocument(Part, frozen=True):
    """Whoever shows one of the tokens (metadata `authorization: Bearer <token>`), or anybody with
    `anonymous`, may do what `allow` says. Tokens are kept as digests only.
    """

    access: Name
    schema: Literal["crossgate/v1"] = SCHEMA
    tokens: tuple[TokenDigest, ...] = ()
    anonymous: bool = False
    allow: tuple[Permission, ...] = ()


_ACCESS_DOCUMENT: Final = inspect.type_info(AccessDocument)


def validate_access(data: object, *, name: str | None = None) -> AccessDocument:
    """Return the document; `name` is what it is kept under. Raises DocumentInvalid with every problem."""
    if isinstance(data, dict):
        refuse_other_schema(data.get("schema"))
        if name is not None:
            data = {"access": name, **data}
    reading = Reading()
    document = reading.read(data, _ACCESS_DOCUMENT, "")
    problems = reading.problems
    if isinstance(data, dict):
        problems += wrong_name("access", data.get("access"), name)
    if isinstance(document, AccessDocument) and not (document.tokens or document.anonymous):
        problems.append(Problem("tokens", "expected at least one, or anonymous: true"))
    if problems:
        raise DocumentInvalid([_discreet(problem) for problem in problems])
    assert isinstance(document, AccessDocument), "it has no problem"
    return document


def _discreet(problem: Problem) -> Problem:
    """Leave out what stands where a digest belongs: it may be the token itself, and logs keep it."""
    if not problem.path.startswith("tokens"):
        return problem
    return Problem(problem.path, problem.message.partition(", got ")[0])

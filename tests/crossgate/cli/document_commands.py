"""Commands on documents, run in this process against a local store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from crossgate.cli.commands import app
from gateway.config.kinds import model_name
from gateway.config.ledger import Ledger
from gateway.config.store.local import LocalStore, open_local
from gateway.config.transaction import Author

if TYPE_CHECKING:
    from pathlib import Path

DIGITS = model_name("digits")
BERT = Author("bert", "hotfix")
FILE = """
# the digits
model: digits
versions:
  "1": {source: "file:///srv/digits/1"}
  "2": {source: "file:///srv/digits/2"}
labels: {stable: "1", canary: "2"}
traffic: {split: {stable: 95, canary: 5}}
"""


@dataclass
class Commands:
    """`folder` has the store and the files."""

    folder: Path

    @property
    def path(self):
        return self.folder / "store.db"

    def __call__(self, *arguments, by="anna", status=0, **options):
        """Run a command; return what it prints, errors last. `status` is the one that it has to end with."""
        environment = {
            "CROSSGATE_STORE": str(self.path),
            "CROSSGATE_BY": by,
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "COLUMNS": "400",
        } | options.pop("environment", {})
        result = CliRunner().invoke(app, [str(each) for each in arguments], env=environment, **options)
        said = result.stdout + result.stderr
        assert result.exit_code == status, f"{result.exit_code}: {said} {result.exception!r}"
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return said

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def at_store(self, work):
        """Run `work(ledger, store)` at the store; what it returns."""

        async def run():
            async with open_local(self.path) as store:
                return await work(Ledger(store), store)

        return asyncio.run(run())

    @contextlib.contextmanager
    def interfering(self, work):
        """Just before the next commit of a command, somebody else does `work(ledger, store)`."""
        commit = LocalStore.commit
        steps = [work]

        async def late(store, writes, expect=()):
            if steps:
                step = steps.pop()
                LocalStore.commit = commit
                await step(Ledger(store), store)
                LocalStore.commit = late
            return await commit(store, writes, expect)

        LocalStore.commit = late
        try:
            yield
        finally:
            LocalStore.commit = commit
        assert not steps, "no commit came"


def generation(said):
    """The generation of a line such as `digits: generation 12, revision 3456 (by anna)`."""
    return int(re.search(r": generation (\d+), revision \d+", said)[1])


def revision(said):
    return int(re.search(r", revision (\d+)", said)[1])


def by_bert(**fields):
    """Somebody else sets fields of digits."""

    async def change(ledger, store):
        await ledger.amend(DIGITS, lambda data: data | fields, BERT, "set")

    return change


def there(crossgate, name="digits"):
    return json.loads(crossgate("get", name, "-o", "json"))

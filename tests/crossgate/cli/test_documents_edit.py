"""A document in an editor."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).parent))  # the module beside this file

from document_commands import FILE, by_bert, there

pytestmark = pytest.mark.slow


def editor(crossgate, *steps):
    """An editor that does one step of Python with `text` each time it is opened, and keeps what it saw."""
    script = crossgate.write(
        "editor.py",
        "import pathlib, sys\n"
        "path, folder = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent\n"
        "number = len(list(folder.glob('seen-*')))\n"
        "text = path.read_text()\n"
        "(folder / f'seen-{number}').write_text(text)\n"
        f"steps = {steps!r}\n"
        "names = {'text': text}\n"
        "exec(steps[min(number, len(steps) - 1)], names)\n"
        "path.write_text(names['text'])\n",
    )
    return {"environment": {"VISUAL": "", "EDITOR": f"{sys.executable} {script}"}}


def kept(crossgate):
    return [*crossgate.folder.glob("crossgate-*.yaml")]


def test_edit_changes_a_document_in_an_editor(crossgate, digits):
    saved = editor(crossgate, "text = text.replace('canary: 5', 'canary: 7') + '# noted\\n'")
    said = crossgate("edit", "digits", "-m", "by hand", **saved)
    assert "~ traffic.split.canary: 5 -> 7" in said
    assert "(by anna: by hand)" in said
    assert there(crossgate)["traffic"]["split"]["canary"] == 7
    assert kept(crossgate) == []


def test_edit_that_changes_nothing_writes_nothing(crossgate, digits):
    assert "unchanged: digits" in crossgate("edit", "digits", **editor(crossgate, "pass"))
    assert kept(crossgate) == []


def test_edit_opens_again_with_what_is_wrong_on_top(crossgate, digits):
    steps = (
        "text = text.replace('canary: 5', 'canary: {')",
        "text = text.replace('canary: {', 'canary: x')",
        "text = text.replace('canary: x', 'canary: 9')",
    )
    crossgate("edit", "digits", **editor(crossgate, *steps))
    assert there(crossgate)["traffic"]["split"]["canary"] == 9
    seen = [(crossgate.folder / f"seen-{i}").read_text() for i in range(3)]
    assert "# !" not in seen[0]
    assert re.search(r"^# ! line \d+", seen[1], re.MULTILINE)
    assert "# ! digits: traffic.split.canary: expected a whole number" in seen[2]
    assert "line" not in seen[2].partition("canary")[0].replace("Lines", "")


def test_edit_that_gives_up_keeps_what_was_typed(crossgate, digits):
    steps = ("text = text.replace('canary: 5', 'canary: {')", "pass")
    said = crossgate("edit", "digits", status=1, **editor(crossgate, *steps))
    assert "saved as it was" in said
    (path,) = kept(crossgate)
    assert str(path) in said
    assert "canary: {" in path.read_text()


def test_an_editor_that_fails_is_named(crossgate, digits):
    for command in ("false", "/no/such/editor"):
        environment = {"VISUAL": command}
        assert f"the editor '{command}'" in crossgate("edit", "digits", status=1, environment=environment)
    assert there(crossgate) == yaml.safe_load(FILE)


def test_edit_shows_what_somebody_changed_meanwhile_and_puts_both_together(crossgate, digits):
    saved = editor(crossgate, "text = text.replace('canary: 5', 'canary: 7')", "text += '\\n'")
    with crossgate.interfering(by_bert(retry="never")):
        crossgate("edit", "digits", **saved)
    assert there(crossgate)["traffic"]["split"]["canary"] == 7
    assert there(crossgate)["retry"] == "never"
    seen = (crossgate.folder / "seen-1").read_text()
    assert "# ! digits was changed meanwhile" in seen
    assert "set by bert" in seen
    assert "\nretry: never" in seen


def test_edit_of_the_same_field_is_not_written_unless_it_is_saved_again(crossgate, digits):
    saved = editor(crossgate, "text = text.replace('canary: 5', 'canary: 7')", "pass")
    theirs = {"traffic": {"split": {"stable": 95, "canary": 6}}}
    with crossgate.interfering(by_bert(**theirs)):
        said = crossgate("edit", "digits", status=3, **saved)
    assert "~ traffic.split.canary: 5 -> 6" in said
    assert there(crossgate)["traffic"]["split"]["canary"] == 6
    assert "canary: 7" in kept(crossgate)[0].read_text()

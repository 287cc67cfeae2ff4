"""The documentation keeps to what is there: links, code, options, fields, metrics."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
import typer
from msgspec import inspect

from crossgate.cli.commands import app
from gateway.config.access_document import AccessDocument, validate_access
from gateway.config.document import ModelDocument
from gateway.config.files import parse_json
from gateway.config.gateway_document import GatewayDocument
from gateway.config.triton_fields import IGNORED, REFUSED
from gateway.config.validation import validate
from gateway.config.xml_document import parse_xml
from gateway.config.yaml12 import parse_yaml
from gateway.telemetry import series
from gateway.telemetry.accounts import Accounts
from gateway.telemetry.prometheus import Exposition

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENT = ROOT / "docs" / "model-document.md"
SETTINGS = ROOT / "docs" / "settings.md"
PAGES = [
    README,
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "bench" / "README.md",
    DOCUMENT,
    SETTINGS,
    ROOT / "docs" / "operating.md",
    ROOT / "docs" / "store.md",
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def named(page):
    return str(page.relative_to(ROOT))


def blocks(page, language):
    return [code for kind, code in FENCE.findall(page.read_text()) if kind == language]


def without_blocks(page):
    return FENCE.sub("", page.read_text())


def anchors(page):
    """What GitHub makes of headings: lower case, no punctuation, hyphens for spaces."""
    headings = (heading.lower().replace("`", "") for heading in HEADING.findall(without_blocks(page)))
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_lead_somewhere(page):
    broken = []
    for link in LINK.findall(without_blocks(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_are_named_in_code_style_exist(page):
    names = re.findall(
        r"`((?:gateway|workers|wire|crossgate|bench|tests|protos)/[a-z0-9_./]+)`", page.read_text()
    )
    paths = [name for name in names if name.endswith((".py", ".proto", "/"))]
    assert [name for name in paths if not (ROOT / name).exists()] == []


def test_python_of_the_readme_compiles():
    codes = blocks(README, "python")
    assert codes
    for code in codes:
        compile(code, str(README), "exec")


def options_of(command):
    group = typer.main.get_command(app)
    return {option for parameter in group.commands[command].params for option in parameter.opts}


def test_options_in_the_text_of_the_readme_are_those_of_serve_and_worker():
    asked = set(OPTION.findall(without_blocks(README)))
    assert "--drain-s" in asked
    assert asked - options_of("serve") - options_of("worker") == set()


def test_options_in_the_commands_of_the_readme_exist():
    lines = "\n".join(blocks(README, "") + blocks(README, "sh")).replace("\\\n", " ").splitlines()
    found = 0
    for line in lines:
        match = re.search(r"\bcrossgate (\w+)(.*?)(?:#|$)", line)
        if match:
            found += 1
            assert set(OPTION.findall(match[2])) <= options_of(match[1]), line
    assert found >= 4


@pytest.mark.parametrize("page", [README, DOCUMENT], ids=named)
def test_documents_in_yaml_are_valid(page):
    documents = blocks(page, "yaml")
    assert documents
    for text in documents:
        data = parse_yaml(text)
        if "access" in data:
            assert validate_access(data).allow
        else:
            assert validate(data, model="digits").model == "digits"


def test_documents_in_json_and_xml_are_valid():
    (text,) = blocks(DOCUMENT, "json")
    assert validate(parse_json(text)).labels == {"stable": "1"}
    (text,) = blocks(DOCUMENT, "xml")
    assert validate(parse_xml(text)).labels == {"stable": "1"}


def structs_and_leaves(struct, prefix=""):
    """Yield (path, default) of every field below a struct; the default is None for a struct."""
    for field in inspect.type_info(struct).fields:
        path = f"{prefix}{field.name}"
        kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
        for kind in kinds:
            if isinstance(kind, inspect.Metadata):
                kind = kind.type
            inner = getattr(kind, "item_type", None) or getattr(kind, "value_type", None) or kind
            if isinstance(inner, inspect.StructType):
                step = {inspect.VarTupleType: "[]", inspect.DictType: ".*"}.get(type(kind), "")
                yield from structs_and_leaves(inner.cls, f"{path}{step}.")
        if not any(isinstance(kind, inspect.StructType) for kind in kinds):
            yield path, written(field)


def written(field):
    """Return a default as the page writes it."""
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{json.dumps(field.default_factory())}`"
    if field.default is msgspec.NODEFAULT:
        return "required"
    return "*none*" if field.default is None else f"`{json.dumps(msgspec.to_builtins(field.default))}`"


def rows_of_fields():
    """Return {field: default} of the tables of the page."""
    rows = (line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| `"))
    return {row[1].strip(" `"): row[3].strip() for row in rows if len(row) == 7}


def test_every_field_of_the_document_is_described_with_its_default():
    expected = dict(structs_and_leaves(ModelDocument))
    expected["model"] = "the folder's name"  # required of a document that is stored under no name
    assert rows_of_fields() == expected


@pytest.mark.parametrize(
    ("heading", "document"),
    [("The gateways' document", GatewayDocument), ("Access documents", AccessDocument)],
)
def test_every_field_of_the_other_documents_is_described_with_its_default(heading, document):
    section = DOCUMENT.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = (line.split("|") for line in section.splitlines() if line.startswith("| `"))
    assert {row[1].strip(" `"): row[3].strip() for row in rows} == dict(structs_and_leaves(document))


def settings_of(command):
    """Yield (option, variable, default) as the page writes them, None for a default that it words."""
    for parameter in typer.main.get_command(app).commands[command].params:
        if parameter.name != "help":
            variable = parameter.envvar or f"CROSSGATE_{command}_{parameter.name}".upper()
            default = json.dumps(parameter.default).strip('"')
            worded = default in ("null", "")
            yield parameter.opts[0], f"`{variable}`", None if worded else f"`{default}`"


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_every_setting_is_described_with_its_variable_and_default(command):
    section = SETTINGS.read_text().partition(f"\n## crossgate {command}\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `--")]
    described = {row[0].strip("| `"): (row[1].strip(), row[2].strip()) for row in rows}
    asked = {option: (variable, default) for option, variable, default in settings_of(command)}
    assert described.keys() == asked.keys()
    for option, (variable, default) in asked.items():
        assert described[option][0] == variable
        assert default is None or described[option][1] == default, option


def test_every_top_level_field_is_named():
    text = DOCUMENT.read_text()
    fields = [field.name for field in inspect.type_info(ModelDocument).fields]
    assert [name for name in fields if f"`{name}" not in text] == []


@pytest.mark.parametrize("table", [IGNORED, REFUSED], ids=["ignored", "refused"])
def test_what_becomes_of_fields_of_a_config_pbtxt_is_named(table):
    text = DOCUMENT.read_text()
    assert [name for name in table if f"`{name}`" not in text] == []


def test_metrics_of_the_readme_exist():
    exposed = set(re.findall(r"^# TYPE (\w+)", Exposition(Accounts()).render().decode(), re.MULTILINE))
    exposed |= {value.name for value in vars(series).values() if isinstance(value, series.Series)}
    asked = set(re.findall(r"\bcrossgate_\w+", README.read_text()))
    assert asked
    assert asked - exposed == set()


@pytest.mark.parametrize("page", [README, ROOT / "CONTRIBUTING.md"], ids=named)
def test_rust_that_is_asked_for_is_that_of_the_crate(page):
    needed = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())["package"]["rust-version"]
    assert set(re.findall(r"Rust (\d+\.\d+) or newer", page.read_text())) == {needed}


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z-]+)`", page.read_text())) <= targets, named(page)

"""Documents as YAML that reads back as the same, by this release's reader and by one of YAML 1.1."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from gateway.config.schema import ordered

if TYPE_CHECKING:
    from msgspec import inspect

_WIDTH: Final = 110


class _Dumper(yaml.SafeDumper):
    """Quotes what either schema would take for something else than text."""

    def serialize(self, node: yaml.Node) -> None:
        """A document has a line for each of its keys, however short they are."""
        if isinstance(node, yaml.CollectionNode) and node.value:
            node.flow_style = False
        super().serialize(node)

    def ignore_aliases(self, data: Any) -> bool:
        """Documents are trees: `&` and `*` would only puzzle."""
        return True


# What YAML 1.2 takes for numbers and YAML 1.1 does not; PyYAML quotes what its own readers would not keep.
_NUMBERS: Final = {
    "int": r"[-+]?[0-9]+\Z",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z",
}
for _kind, _form in _NUMBERS.items():
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_form), None)


# PyYAML loses these line breaks in its other styles.
_ESCAPED: Final = re.compile("[\r\x85\u2028\u2029]")


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if _ESCAPED.search(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def write_yaml(data: dict[str, Any], kind: inspect.Type | None = None) -> str:
    """One document, its keys in the order in which `kind` declares them."""
    return yaml.dump(
        ordered(data, kind),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=_WIDTH,
        default_flow_style=None,
    )

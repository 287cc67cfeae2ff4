"""Reads a Dockerfile into its stages, as far as the rules need it: no here-documents, no escape directive."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FROM = re.compile(r"(?P<base>\S+)(?:\s+AS\s+(?P<name>\S+))?", re.IGNORECASE)


@dataclass(frozen=True)
class Instruction:
    word: str  # in capitals
    text: str


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def all(self, word: str) -> list[str]:
        """The texts of all instructions of this kind, in order."""
        return [each.text for each in self.instructions if each.word == word]


@dataclass(frozen=True)
class Dockerfile:
    stages: dict[str, Stage]  # {name: stage}

    @classmethod
    def read(cls, path: Path) -> Dockerfile:
        stages: dict[str, Stage] = {}
        found: list[Instruction] = []
        name = base = ""
        for each in _instructions(path.read_text()):
            if each.word == "FROM":
                if name:
                    stages[name] = Stage(name, base, tuple(found))
                match = _FROM.fullmatch(each.text)
                assert match is not None, f"FROM {each.text}"
                assert match["name"], f"a stage without a name: FROM {each.text}"
                name, base, found = match["name"], match["base"], []
            elif name:
                found.append(each)
        stages[name] = Stage(name, base, tuple(found))
        return cls(stages)

    def lineage(self, name: str) -> list[Stage]:
        """The stages that an image of this one consists of, itself first."""
        found = []
        while name in self.stages:
            found.append(self.stages[name])
            name = self.stages[name].base
        return found

    def last(self, name: str, word: str) -> str:
        """What this instruction says in the image of a stage, empty where there is none."""
        return next((texts[-1] for stage in self.lineage(name) if (texts := stage.all(word))), "")


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = (line.strip().partition(" ") for line in whole.splitlines() if line.strip())
    return [Instruction(word.upper(), rest.strip()) for word, _, rest in found]

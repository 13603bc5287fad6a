"""YAML that remembers where everything stands, and collects every problem before it complains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from scripts.errors import MatrixError

Key = str | int
Trail = tuple[Key, ...]
Place = tuple[int, int]


@dataclass(frozen=True, order=True)
class Problem:
    """One finding; line and column count from 1. Problems sort by place."""

    file: str
    line: int
    column: int
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.path}: {self.text}"


def spell(trail: Trail) -> str:
    """``toolkits["13.0"].architectures[2]``; the document itself is ``(top)``."""
    spelt = ""
    for part in trail:
        if isinstance(part, int):
            spelt += f"[{part}]"
        elif part.isidentifier():
            spelt += f".{part}"
        else:
            spelt += f'["{part}"]'
    return spelt.lstrip(".") or "(top)"


@dataclass
class Document:
    """Plain data (dict, list, str, ...) of one YAML file, with the position of each key and value, 1-based."""

    name: str
    lines: list[str]
    data: Any = None
    keys: dict[Trail, Place] = field(default_factory=dict)
    values: dict[Trail, Place] = field(default_factory=dict)
    problems: set[Problem] = field(default_factory=set)

    def report(self, trail: Trail, text: str, *, key: bool = False) -> None:
        """Note a problem at a value (or at its key); what is not in the file is placed at its nearest parent."""
        self.problems.add(Problem(self.name, *self._place(trail, key), spell(trail), text))

    def _place(self, trail: Trail, key: bool) -> Place:
        if trail in self.values:
            return self.keys.get(trail, self.values[trail]) if key else self.values[trail]
        for length in range(len(trail) - 1, 0, -1):
            parent = trail[:length]
            if parent in self.values:
                return self.keys.get(parent, self.values[parent])
        return (1, 1)

    def source(self, trail: Trail) -> str:
        """The scalar at ``trail`` as it is written, e.g. ``3.10`` where the data has the number 3.1."""
        line, column = self.values[trail]
        return self.lines[line - 1][column - 1 :].split("#")[0].split(",")[0].strip(" ]}\t")


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise all of them as one :class:`MatrixError`, one a line, sorted by file and line; nothing if there are none."""
    lines = [str(problem) for problem in sorted(problems)]
    if lines:
        raise MatrixError("\n".join(lines), hint="hint each of these lines, then `nox -s plan`")


def read(path: Path) -> Document:
    """Parse one YAML file; duplicate keys and keys that are not text become problems, not exceptions.

    Raises:
        MatrixError: there is no such file, or it is not YAML at all.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MatrixError(f"cannot read {path}: {error}") from error
    document = Document(path.name, text.splitlines())
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
        document.data = None if root is None else _Builder(document, yaml.constructor).build(root, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        why = " ".join(part for part in (error.context, error.problem) if part)
        raise_problems([Problem(path.name, line, column, "(top)", f"not YAML: {why}")])
    return document


class _Builder:
    """Turns YAML nodes into plain data."""

    def __init__(self, document: Document, constructor: Any) -> None:
        self._document = document
        self._scalars = constructor
        self._open: list[Node] = []

    def build(self, node: Node, trail: Trail) -> Any:
        mark = node.start_mark
        self._document.values[trail] = (mark.line + 1, mark.column + 1)
        if any(node is outer for outer in self._open):
            self._document.report(trail, "an alias to itself; write the value out")
            return None
        self._open.append(node)
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, trail)
            if isinstance(node, SequenceNode):
                return [self.build(item, (*trail, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, trail)
        finally:
            self._open.pop()

    def _mapping(self, node: MappingNode, trail: Trail) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            inner = (*trail, name)
            place = (key.start_mark.line + 1, key.start_mark.column + 1)
            if name in built:
                problem = f"duplicate key, first on line {self._document.keys[inner][0]}; keep one of the two"
                self._document.problems.add(Problem(self._document.name, *place, spell(inner), problem))
                continue
            self._document.keys[inner] = place
            built[name] = self.build(value, inner)
            if value.start_mark.index == value.end_mark.index:
                # An empty value has no place of its own: YAML puts it at whatever comes next.
                self._document.values[inner] = place
            if not isinstance(key, ScalarNode) or not str(key.tag).endswith(":str"):
                self._document.report(inner, f'the key {name} is read as {_kind(key)}; quote it: "{name}"', key=True)
        return built

    def _scalar(self, node: Node, trail: Trail) -> Any:
        try:
            return self._scalars.construct_object(node)
        except ConstructorError:
            self._document.report(trail, f"the tag {node.tag} means nothing here; remove it")
            return node.value


def _kind(node: Node) -> str:
    tag = str(node.tag).rpartition(":")[2]
    return {"float": f"the number {node.value}", "int": "a number", "bool": "a truth value"}.get(tag, f"a {tag}")

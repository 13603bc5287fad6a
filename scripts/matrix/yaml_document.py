"""Read YAML with the position of every key and value, and collect problems to report them together."""

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
    """One problem in a file; ``line`` and ``column`` count from 1. Problems sort by position."""

    file: str
    line: int
    column: int
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.path}: {self.text}"


def spell(trail: Trail) -> str:
    """Return a trail as text, such as ``toolkits["13.0"].architectures[2]``, or ``(top)`` for the whole document."""
    text = ""
    for part in trail:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}"
        else:
            text += f'["{part}"]'
    return text.lstrip(".") or "(top)"


@dataclass
class Document:
    """The data of one YAML file (dict, list, str, ...), with the position of each key and value, counted from 1."""

    name: str
    lines: list[str]
    data: Any = None
    keys: dict[Trail, Place] = field(default_factory=dict)
    values: dict[Trail, Place] = field(default_factory=dict)
    problems: set[Problem] = field(default_factory=set)

    def report(self, trail: Trail, text: str, *, key: bool = False) -> None:
        """Add a problem at the position of a value or its key; a missing entry gets the position of its parent."""
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
        """Return the scalar at ``trail`` as it is written in the file: ``3.10``, where the data contains 3.1."""
        line, column = self.values[trail]
        return self.lines[line - 1][column - 1 :].split("#")[0].split(",")[0].strip(" ]}\t")


def raise_problems(problems: Iterable[Problem]) -> None:
    """Raise one :class:`MatrixError` with one line per problem, sorted by position; return if there are no problems."""
    lines = [str(problem) for problem in sorted(problems)]
    if lines:
        raise MatrixError("\n".join(lines), hint="correct these lines, then run `nox -s plan`")


def read(path: Path) -> Document:
    """Parse one YAML file; report duplicate keys and keys that are not text as problems of the document.

    Raises:
        MatrixError: if the file cannot be read or is not valid YAML.
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
    """Converts YAML nodes into plain data."""

    def __init__(self, document: Document, constructor: Any) -> None:
        self._document = document
        self._scalars = constructor
        self._open: list[Node] = []

    def build(self, node: Node, trail: Trail) -> Any:
        mark = node.start_mark
        self._document.values[trail] = (mark.line + 1, mark.column + 1)
        if any(node is outer for outer in self._open):
            self._document.report(trail, "an alias that refers to itself; write the value instead")
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
                # YAML gives an empty value the position of the next token; use that of its key.
                self._document.values[inner] = place
            if not isinstance(key, ScalarNode) or not str(key.tag).endswith(":str"):
                self._document.report(inner, f'the key {name} is read as {_kind(key)}; quote it: "{name}"', key=True)
        return built

    def _scalar(self, node: Node, trail: Trail) -> Any:
        try:
            return self._scalars.construct_object(node)
        except ConstructorError:
            self._document.report(trail, f"the tag {node.tag} is not supported; remove it")
            return node.value


def _kind(node: Node) -> str:
    tag = str(node.tag).rpartition(":")[2]
    return {"float": f"the number {node.value}", "int": "a number", "bool": "a truth value"}.get(tag, f"a {tag}")

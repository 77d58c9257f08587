"""YAML with positions: plain data, plus the line and column of every key and value.

YAML 1.2 core schema on PyYAML's parser: only ``true``/``false`` are booleans, nothing is a date or a base-60 number,
and keys are always text (``0:`` is "0", ``on:`` is "on"), so that a file means what a person thinks it means.
Duplicate keys are problems, not silently dropped. Aliases and ``<<`` work; what they expand to is bounded.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import Any, ClassVar

import yaml

from harness.dataclass import dataclass

Path = tuple[str | int, ...]
MAX_DEPTH = 64
MAX_NODES = 200_000
"""Nodes after the expansion of aliases: a small file must not become a big one ("billion laughs")."""

_TAG = "tag:yaml.org,2002:"
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # the C loader has no type stubs
    """SafeLoader whose implicit types are the YAML 1.2 core schema."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


for _name, _regex, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+0123456789."),
    ),
    ("merge", r"^(?:<<)$", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_regex), _first)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the text, counted from 1 as editors do."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong at one place. `path` is () for a problem of the whole text."""

    what: str
    mark: Mark
    path: Path = ()


@dataclass(slots=True, kw_only=True)
class Document:
    """What a text says, and where. `data` is None when a syntax error is among the problems."""

    data: Any = None
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def value_mark(self, path: Path) -> Mark:
        """Where the value at `path` stands, or the nearest thing around it that exists."""
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, Mark(1, 1))

    def key_mark(self, path: Path) -> Mark:
        """Where the key of `path` stands; its value's place when it has no key (list entries)."""
        return self.keys.get(path) or self.value_mark(path)


def parse(text: str) -> Document:
    """Never raises for what the text says: every problem is in the result."""
    document = Document()
    loader = None
    try:
        _bound_depth(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            document.data = _Builder(document).build(node, (), ())
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)
        what = ", ".join(p for p in (e.context, e.problem) if p) or "not YAML"
        document.data = None
        document.problems.append(Problem(what=f"not valid YAML: {what}", mark=place))
    except yaml.reader.ReaderError as e:
        document.problems.append(Problem(what=f"not valid YAML: {e.reason}", mark=_mark_at(text, e.position)))
    except (_TooMuchError, RecursionError) as e:
        document.data = None
        what = str(e) if isinstance(e, _TooMuchError) else "nested too deeply"
        document.problems.append(Problem(what=what, mark=Mark(1, 1)))
    finally:
        if loader is not None:
            loader.dispose()
    return document


def _mark_at(text: str, position: object) -> Mark:
    if not isinstance(position, int) or position < 0:
        return Mark(1, 1)
    before = text[:position]
    return Mark(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)


def _bound_depth(text: str) -> None:
    """Events come without recursion; composing recurses, and libyaml's binding overflows the C stack at 100,000 ``[``."""
    depth = 0
    loader = _Loader(text)
    try:
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise _TooMuchError(f"nested more than {MAX_DEPTH} levels deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    finally:
        loader.dispose()


class _TooMuchError(Exception):
    """The text expands to more than we are willing to hold."""


class _Builder:
    """Nodes -> data and places. Aliases share nodes, so the walk is bounded by count and by depth."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._visited = 0

    def build(self, node: yaml.Node, path: Path, parents: tuple[int, ...]) -> Any:
        self._visited += 1
        if self._visited > MAX_NODES:
            raise _TooMuchError(f"expands to more than {MAX_NODES} values")
        if len(parents) > MAX_DEPTH:
            raise _TooMuchError(f"nested more than {MAX_DEPTH} levels deep")
        if id(node) in parents:
            self._problem("an alias inside of what it names", node, path)
            return None
        self._document.values[path] = _mark(node)
        inside = (*parents, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, i), inside) for i, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path, parents: tuple[int, ...]) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                self._merge(value, path, parents, merged)
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._problem("a key must be text", key, path)
                continue
            name = str(key.value)
            below = (*path, name)
            if name in own:
                first = self._document.keys[below]
                self._problem(f"duplicate key {name!r}, first in line {first.line}", key, below)
                continue
            self._document.keys[below] = _mark(key)
            own[name] = self.build(value, below, parents)
        return {**merged, **own}

    def _merge(self, value: yaml.Node, path: Path, parents: tuple[int, ...], into: dict[str, Any]) -> None:
        """``<<: *base`` or ``<<: [*a, *b]``: earlier wins, and keys written out win over both."""
        for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if not isinstance(source, yaml.MappingNode):
                self._problem("`<<` must name a mapping", source, path)
                continue
            kept = self._document.values.get(path, _mark(source))
            data = self.build(source, path, parents)
            self._document.values[path] = kept
            for name, item in (data or {}).items():
                into.setdefault(name, item)

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text = str(node.value)
        match node.tag.removeprefix(_TAG):
            case "str" | "merge":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return self._integer(text, node, path)
            case "float":
                return self._number(text, node, path)
            case _:
                self._problem(f"the tag {node.tag} is not supported", node, path)
                return None

    def _integer(self, text: str, node: yaml.Node, path: Path) -> int | None:
        try:
            return int(text, 0) if text[:2] in ("0x", "0o") else int(text, 10)
        except ValueError:  # more digits than sys.get_int_max_str_digits(), or a forced tag on other text
            self._problem("not a number that can be read", node, path)
            return None

    def _number(self, text: str, node: yaml.Node, path: Path) -> float | None:
        try:
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:  # a forced tag on other text
            self._problem("not a number that can be read", node, path)
            return None

    def _problem(self, what: str, node: yaml.Node, path: Path) -> None:
        self._document.problems.append(Problem(what=what, mark=_mark(node), path=path))


def _mark(node: yaml.Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)

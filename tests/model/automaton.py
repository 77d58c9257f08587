"""A protocol generator as an automaton: states are discovered by replaying the generator, once for each new reply.

A generator cannot be copied, so an explorer that runs it has to run it again from the start for every state of the
world. Its own state is small, though: two runs whose frames look the same will do the same. So each process is turned
into an automaton, lazily: a node is the state of the frames, an edge is a reply, and a replay happens only when an edge
is walked for the first time. Ten million states of the world then cost some ten thousand replays.

What two frames hide from comparison (a half-evaluated expression) would merge what must not be merged. Therefore each
edge is walked from up to three different histories that lead to its node, and they must agree.
"""

from __future__ import annotations

import itertools
import json
import types
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from typing import Any, TypeAlias

from harness.errors import StoreError, UnreadableRecordError
from harness.model import Record

Body: TypeAlias = Generator[tuple[Any, ...], Any, Any]
END = -1
"""The node of a process that has ended."""
LOCAL = frozenset(
    {
        "make",
        "stage",
        "fsync",
        "unlink",
        "build",
        "commit",
        "superseded",
        "acked",
        "promised",
        "exec",
        "relation",
        "unmerged",
    }
)
"""Operations on what is private, or notes for the history: they commute with whatever others do."""
PRIVATE = frozenset({"make", "stage", "unlink"})
"""Those of them that a sweep of queue/tmp/ sees, or undoes."""
SYNC = frozenset({"fsync_dir", "syncfs", "sync_hub"})
"""Without effect as long as the power stays."""
HISTORIES = 3


class Torn:
    """The reply to `read` of a record that is damaged."""

    def __repr__(self) -> str:
        return "TORN"


TORN = Torn()


class Interned:
    """Records by content: two equal records are the same object, with one small number."""

    def __init__(self) -> None:
        self._by_bytes: dict[tuple[str, bytes], int] = {}
        self._records: list[Record] = []
        self._numbers: dict[int, int] = {}
        self._read: dict[tuple[int, type[Record]], Any] = {}

    def number(self, record: Record) -> int:
        known = self._numbers.get(id(record))
        if known is not None:
            return known
        key = (type(record).__name__, record.to_bytes())
        number = self._by_bytes.setdefault(key, len(self._records))
        if number == len(self._records):
            self._records.append(record)
            self._numbers[id(record)] = number
        return number

    def record(self, number: int) -> Record:
        return self._records[number]

    def read(self, number: int, kind: type[Record]) -> Any:
        """What a reader that expects `kind` makes of the bytes; TORN when it refuses them."""
        found = self._read.get((number, kind))
        if found is None:
            found = self._decode(number, kind)
            self._read[(number, kind)] = found
        return found

    def _decode(self, number: int, kind: type[Record]) -> Any:
        try:
            found = kind.from_record(json.loads(self._records[number].to_bytes()), "model")
        except UnreadableRecordError:
            return TORN
        return self._records[self.number(found)]


_SIMPLE = frozenset({type(None), bool, int, str, bytes, float})
_PLAIN = _SIMPLE | {tuple}


def same_reply(reply: Any) -> Any:
    """A hashable stand-in that is equal for equal replies. Records and drops are interned: one object for each content."""
    kind = type(reply)
    return reply if kind in _PLAIN or not is_dataclass(kind) else ("id", id(reply))


@dataclass(slots=True)
class Node:
    op: tuple[Any, ...] | None
    """What it does next; None: it has ended."""
    local: bool
    histories: list[tuple[Any, ...]]
    edges: dict[Any, int] = field(default_factory=dict)


class Automaton:
    """One process of one incarnation. `make` gives a fresh generator."""

    def __init__(self, make: Callable[[], Body]) -> None:
        self._make = make
        self.nodes: list[Node] = []
        self._known: dict[Any, int] = {}
        self.start = self._place(())

    def step(self, node: int, reply: Any) -> int:
        """The node after `reply`; END when the process returned."""
        edges = self.nodes[node].edges
        key = same_reply(reply)
        found = edges.get(key)
        if found is None:
            found = edges[key] = self._walk(node, reply)
        return found

    def _walk(self, node: int, reply: Any) -> int:
        first, *others = self.nodes[node].histories
        found = self._place((*first, reply))
        for other in others:
            assert self._place((*other, reply)) == found, f"two histories differ after {self.nodes[node].op}"
        return found

    def _place(self, history: tuple[Any, ...]) -> int:
        """Run the generator on a history. -> the node it comes to"""
        body = self._make()
        op: tuple[Any, ...]
        key: Any
        try:
            op = next(body)
            for reply in history:
                op = body.send(reply)
        except StopIteration:
            return END
        except StoreError as e:  # the process reports what is broken, and ends
            op, key = ("alarm", str(e.where)), ("alarm", str(e.where))
        else:
            key = (op_key(op), _frames(body))
        body.close()
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = len(self.nodes)
            self.nodes.append(Node(op, op[0] in LOCAL, [history]))
        elif len(self.nodes[known].histories) < HISTORIES:
            self.nodes[known].histories.append(history)
        return known


def op_key(op: tuple[Any, ...]) -> Any:
    return tuple(_frozen(x) for x in op)


def _frames(body: Any) -> tuple[Any, ...]:
    """Where a generator is, with everything that it and the generators it waits for remember."""
    out: list[Any] = []
    while isinstance(body, types.GeneratorType) and body.gi_frame is not None:
        frame = body.gi_frame
        names = tuple((k, _frozen(v)) for k, v in sorted(frame.f_locals.items()))
        out.append((frame.f_code.co_filename, frame.f_code.co_name, frame.f_lasti, names))
        body = body.gi_yieldfrom
    return tuple(out)


_DRAFTS: dict[int, tuple[Any, str]] = {}
"""Drafts are as few as the drops of a scenario, and never change."""


def _frozen(value: Any) -> Any:
    """Anything a frame may hold, as something hashable that is equal when it means the same."""
    kind = type(value)
    if kind in _SIMPLE:
        return value
    how = _FREEZERS.get(kind)
    if how is None:
        how = _FREEZERS[kind] = _freezer(kind)
    return how(value)


_FREEZERS: dict[type, Callable[[Any], Any]] = {}


def _freezer(kind: type) -> Callable[[Any], Any]:
    """How values of a type are made hashable."""
    name = kind.__name__
    if issubclass(kind, (type, Torn, Enum)):
        return lambda value: value
    if issubclass(kind, (tuple, list)):
        return lambda value: (name, *map(_frozen, value))
    if issubclass(kind, (set, frozenset)):
        return lambda value: ("set", frozenset(map(_frozen, value)))
    if issubclass(kind, Mapping):
        return lambda value: ("map", tuple((_frozen(k), _frozen(v)) for k, v in value.items()))
    if issubclass(kind, types.GeneratorType):
        return _frames
    if issubclass(kind, itertools.count):
        return repr
    if issubclass(kind, (types.FunctionType, types.MethodType, types.ModuleType, types.BuiltinFunctionType)):
        return lambda value: getattr(value, "__qualname__", None) or value.__name__
    if issubclass(kind, types.SimpleNamespace):
        return lambda value: "namespace"
    if is_dataclass(kind):
        names = tuple(kind.__dataclass_fields__)
        return lambda value: (name, *[_frozen(getattr(value, one)) for one in names])
    return _draft if hasattr(kind, "model_dump_json") else _text


def _draft(value: Any) -> str:
    known = _DRAFTS.get(id(value))
    if known is None:
        known = _DRAFTS[id(value)] = (value, value.model_dump_json())
    return known[1]


def _text(value: Any) -> str:
    text = repr(value)
    assert " at 0x" not in text, f"a frame holds {text}, which cannot be compared"
    return text

"""JSON and YAML of strangers as plain values with their places, or the reason why not. Never raises for any text.

Whatever is written, reading it costs a bounded time: what would cost more is refused before it is parsed (`too_much`),
or while (`_Builder`). Half of the limit is for what is done with the values afterwards.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from harness.dataclass import dataclass
from harness.store.positions import NOWHERE, JsonPlaces, Path, Places, YamlPlaces, line_column

MAX_ITEM = 1 << 19
"""Bytes of a JSON drop that is one item, or of one line: up to 25 ms until it is stored."""
MAX_VALUES = 50_000
"""Commas, lists and objects in one JSON drop (or all lines of one)."""
MAX_ITEM_VALUES = 15_000
"""The same, when it is one item: its fields have limits of their own, and this is what they come to."""
MAX_LINES = 100_000
"""Of a .jsonl file, empty ones included."""
MAX_OUTSIDE = 1 << 19
"""Bytes of a JSON drop outside of strings and spaces: numbers, punctuation."""
MAX_ESCAPES = 100_000
"""Backslashes in one JSON drop that is mostly made of them: text with more than a quarter is nobody's prose or code."""
MAX_DIGITS = 1000
"""In a row. Python's time for a number is quadratic in them."""
MAX_YAML = 256 << 10
"""Characters of YAML in one drop."""
MAX_YAML_VALUES = 3_000
"""Keys, texts, numbers, lists and mappings in one YAML drop: ten times as slow as JSON."""
MAX_YAML_DEPTH = 64
SHOWN = 100
"""Characters of what a person wrote that a reason repeats."""

_ONE_ITEM = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{")
_ALIKE = bytes.maketrans(b"123456789", b"0" * 9)
_TOO_LONG = b"0" * (MAX_DIGITS + 1)
_TAG = "tag:yaml.org,2002:"
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it (as its wheels are): the same events, twenty times as fast."""
_MAKE = yaml.constructor.SafeConstructor()
_UNREADABLE = yaml.reader.Reader.NON_PRINTABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that is wrong with a drop. `where` is ``items[2].prompt`` or ""; line and column are 1-based or 0."""

    what: str
    where: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"line {self.line}, column {self.column}: " if self.line else ""
        return place + (f"{self.where}: " if self.where else "") + self.what


def shown(text: str) -> str:
    """A stranger's text for a message: quoted, and never longer than a line or two."""
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}…"


def too_much(raw: bytes, *, lines: bool = False) -> Reason | None:
    """Why these bytes, if they are JSON, are not even parsed; None when they may be. Exact for valid JSON.

    Of other text it may count too much or too little; but a parser stops at the first mistake, and up to there it is
    exact. Costs a few passes of memchr(3). `lines`: each is JSON of its own.
    """
    if len(raw) <= MAX_DIGITS:
        return None
    if lines and raw.count(b"\n") > MAX_LINES:
        return Reason(what=f"has more than {MAX_LINES} lines; split it")
    if len(raw) > MAX_ESCAPES and raw.count(b"\\") > max(MAX_ESCAPES, len(raw) // 4):
        return Reason(what="is more than a quarter backslashes; let the prompt name a file of the repository")
    one = not lines and _ONE_ITEM.match(raw) is not None
    if len(raw) > MAX_ITEM:
        if one:
            return _too_long("is one item")
        if lines and max(map(len, raw.split(b"\n"))) > MAX_ITEM:
            return _too_long("has a line")
    most = MAX_ITEM_VALUES if one else MAX_VALUES
    plain = raw.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in raw else raw
    if plain.count(b'"') > 4 * most:
        return _too_many(most)
    outside = b"".join(plain.split(b'"')[::2])
    if sum(outside.count(x) for x in (b",", b"[", b"{")) > most:
        return _too_many(most)
    outside = outside.translate(None, b" \t\r\n")
    if len(outside) > MAX_OUTSIDE:
        return Reason(what=f"has more than {MAX_OUTSIDE >> 10} KiB of numbers and punctuation; split it")
    if _TOO_LONG in outside.translate(_ALIKE):
        return Reason(
            what=f"is not valid JSON as it is read here: a number has more than {MAX_DIGITS} digits"
        )
    return None


def _too_long(what: str) -> Reason:
    return Reason(
        what=f"{what} of more than {MAX_ITEM >> 10} KiB; let the prompt name a file of the repository instead"
    )


def _too_many(most: int) -> Reason:
    return Reason(what=f"has more than {most} values, or is nested too deeply; split it into several files")


def load_json(text: str, line: int = 1) -> tuple[Any, Places, Reason | None]:
    """-> (value, where its parts stand, None) or (None, nowhere, what is wrong). `line`: where the text begins.

    The caller has asked `too_much`.
    """
    try:
        value = _JSON.decode(text)
    except json.JSONDecodeError as e:
        what = f"is not valid JSON: {e.msg}"
        if e.msg.startswith("Expecting value") and text.lstrip()[:1] == "'":
            what += " (JSON strings use double quotes)"
        return None, NOWHERE, Reason(what=what, line=e.lineno + line - 1, column=e.colno)
    except RecursionError:
        return None, NOWHERE, Reason(what="is nested too deeply for JSON", line=line, column=1)
    except ValueError as e:
        return None, NOWHERE, Reason(what=f"is not valid JSON: {e}", line=line, column=1)
    return value, JsonPlaces(text, line), None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} occurs twice in one object")
    return out


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def load_yaml(text: str) -> tuple[Any, Places, Reason | None]:
    """Like `load_json`, for one YAML document: plain data, no aliases (a few lines of them can stand for gigabytes)."""
    if len(text) > MAX_YAML:
        what = f"is YAML of more than {MAX_YAML >> 10} KiB; use .json or .jsonl for that much"
        return None, NOWHERE, Reason(what=what)
    if bad := _UNREADABLE.search(text):
        line, column = line_column(text, bad.start())
        what = f"is not valid YAML: the character U+{ord(bad[0]):04X} is not allowed"
        return None, NOWHERE, Reason(what=what, line=line, column=column)
    try:
        value = _Builder().build(text)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        return None, NOWHERE, Reason(what=f"is not valid YAML: {e.problem}", line=line, column=column)
    except RecursionError:  # of the parser in Python, where there is no libyaml
        return None, NOWHERE, Reason(what="is nested too deeply for YAML")
    except (yaml.YAMLError, ValueError) as e:
        return None, NOWHERE, Reason(what=f"is not valid YAML: {e}")
    return value, YamlPlaces(lambda: _places(text)), None


def _places(text: str) -> dict[Path, tuple[int, int]]:
    """Read again, for the places alone: a drop without mistakes never pays for them."""
    builder = _Builder(places={(): (1, 1)})
    builder.build(text)
    return builder.places or {}


def _refused(what: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=mark)


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is being read; `key` is that of the next value, when `has_key`."""

    into: Any
    path: Path
    seen: set[str] | None
    """The keys so far, as written; None for a list."""
    key: Any = None
    has_key: bool = False


@dataclass(slots=True)
class _Builder:
    """Events -> plain data, without recursion, and no further than the limits. Times stay text."""

    places: dict[Path, tuple[int, int]] | None = None

    def build(self, text: str) -> Any:
        root: Any = None
        stack: list[_Frame] = []
        count = documents = 0
        for event in yaml.parse(text, Loader=_Parser):
            kind = type(event)
            value: Any = None
            if kind is yaml.ScalarEvent:
                pass
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                _collection(event)
                value = {} if kind is yaml.MappingStartEvent else []
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                stack.pop()
                continue
            elif kind is yaml.AliasEvent:
                raise _refused("aliases are not supported", event.start_mark)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise _refused("there is a second document", event.start_mark)
                continue
            else:
                continue
            count += 1
            if count > MAX_YAML_VALUES:
                what = f"more than {MAX_YAML_VALUES} values; use .json or .jsonl for that many"
                raise _refused(what, event.start_mark)
            frame = stack[-1] if stack else None
            if frame and frame.seen is not None and not frame.has_key:
                frame.key = _key(event, frame.seen)
                frame.has_key = True
                continue
            if kind is yaml.ScalarEvent:
                value = _scalar(event)
            path: Path = ()
            if frame is None:
                root = value
            elif frame.seen is None:
                path = (*frame.path, len(frame.into))
                frame.into.append(value)
            else:
                path = (*frame.path, frame.key)
                frame.into[frame.key] = value
                frame.has_key = False
            if self.places is not None:
                mark: Any = event.start_mark
                self.places[path] = (mark.line + 1, mark.column + 1)
            if kind is not yaml.ScalarEvent:
                if len(stack) == MAX_YAML_DEPTH:
                    raise _refused("nested too deeply", event.start_mark)
                stack.append(_Frame(value, path, set() if kind is yaml.MappingStartEvent else None))
        return root


def _collection(event: Any) -> None:
    if event.tag not in (None, "!", f"{_TAG}map", f"{_TAG}seq"):
        raise _refused(f"the tag {shown(event.tag)} is not supported", event.start_mark)


def _key(event: Any, seen: set[str]) -> Any:
    """The value of a key; what is not text is refused later, with the field that it stands in."""
    if type(event) is not yaml.ScalarEvent:
        raise _refused("a key must be text", event.start_mark)
    if event.value == "<<" and event.implicit[0]:
        raise _refused("`<<` is not supported", event.start_mark)
    if event.value in seen:
        raise _refused(f"the key {shown(event.value)} occurs twice", event.start_mark)
    seen.add(event.value)
    return _scalar(event)


def _scalar(event: Any) -> Any:
    tag, value = event.tag, event.value
    if tag is None or tag == "!":
        if tag or not event.implicit[0]:
            return value
        tag = _implied(value)
    kind = tag.removeprefix(_TAG)
    if kind == "str":
        return value
    if kind == "null":
        return None
    if kind in ("int", "float") and len(value) > MAX_DIGITS:
        raise _refused("a number has too many digits", event.start_mark)
    try:
        if kind == "bool":
            return _MAKE.bool_values[value.lower()]
        if kind == "int":
            return _MAKE.construct_yaml_int(yaml.ScalarNode(tag, value))
        if kind == "float":
            return _MAKE.construct_yaml_float(yaml.ScalarNode(tag, value))
    except (ValueError, LookupError, OverflowError):
        raise _refused(f"{shown(value)} is no {kind} that can be read", event.start_mark) from None
    raise _refused(f"the tag {shown(tag)} is not supported", event.start_mark)


_RULES: dict[str, list[tuple[str, re.Pattern[str]]]] = {
    first: [(tag, rule) for tag, rule in rules if tag.removeprefix(_TAG) in ("null", "bool", "int", "float")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _implied(value: str) -> str:
    """The tag of a plain scalar, by the rules of YAML 1.1 but for dates and times: 2027-01-01 and 12:30 are text."""
    if ":" in value:
        return f"{_TAG}str"
    if len(value) > MAX_DIGITS:
        return f"{_TAG}int" if value.isdecimal() else f"{_TAG}str"
    for tag, rule in _RULES.get(value[:1], ()):
        if rule.match(value):
            return tag
    return f"{_TAG}str"

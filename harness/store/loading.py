"""JSON and YAML of strangers as plain values with their places, or the reason why not. Never raises for any text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from harness.store.positions import NOWHERE, Places, json_places, yaml_places

MAX_YAML = 256 << 10
"""Characters of YAML in one drop: the parser is slow, and people write less."""


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


def load_json(text: str, line: int = 1) -> tuple[Any, Places, Reason | None]:
    """-> (value, where its parts stand, None) or (None, nowhere, what is wrong). `line`: where the text begins."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as e:
        what = f"is not valid JSON: {e.msg}"
        if e.msg.startswith("Expecting value") and text.lstrip()[:1] == "'":
            what += " (JSON strings use double quotes)"
        return None, NOWHERE, Reason(what=what, line=e.lineno + line - 1, column=e.colno)
    except RecursionError:
        return None, NOWHERE, Reason(what="is nested too deeply for JSON")
    except ValueError as e:
        return None, NOWHERE, Reason(what=f"is not valid JSON: {e}", line=line, column=1)
    return value, json_places(text, line), None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        twice = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return out


class _DropLoader(yaml.SafeLoader):
    """YAML as plain data: no aliases (a few lines of them can stand for gigabytes), no key twice, times stay text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML declares it as an instance variable)
        first: [(tag, regexp) for tag, regexp in rules if tag != "tag:yaml.org,2002:timestamp"]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases are not supported",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} occurs twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> tuple[Any, Places, Reason | None]:
    """Like `load_json`, for one YAML document."""
    if len(text) > MAX_YAML:
        return (
            None,
            NOWHERE,
            Reason(what=f"is YAML of more than {MAX_YAML >> 10} KiB; use .json or .jsonl for that much"),
        )
    loader: _DropLoader | None = None
    try:
        loader = _DropLoader(text)  # raises for characters that YAML does not know, such as NUL
        root = loader.get_single_node()
        value = loader.construct_document(root) if root else None
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        return None, NOWHERE, Reason(what=f"is not valid YAML: {e.problem}", line=line, column=column)
    except RecursionError:
        return None, NOWHERE, Reason(what="is nested too deeply for YAML")
    except (yaml.YAMLError, ValueError) as e:
        return None, NOWHERE, Reason(what=f"is not valid YAML: {e}")
    finally:
        if loader is not None:
            loader.dispose()
    return value, yaml_places(root) if root else NOWHERE, None

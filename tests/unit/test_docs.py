"""docs/configuration.md and docs/items.md name every key and field there is, with its default, and no other."""

from __future__ import annotations

import re
import signal
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from typing import Any

import pytest
import yaml

from harness.config import OutcomeName, load
from harness.config.models import (
    WRITTEN,
    Agent,
    Budget,
    Budgets,
    Config,
    Credential,
    Disk,
    Gate,
    Heal,
    Health,
    Intake,
    Merge,
    Pattern,
    Price,
    Project,
    Retry,
    Setup,
)
from harness.config.references import PLACEHOLDERS
from harness.store.draft import ALIASES, Draft
from tests.support import ROOT

CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
ITEMS = (ROOT / "docs/items.md").read_text()
SECTIONS: dict[str, type] = {
    "The top": Config,
    "`projects.<name>`": Project,
    "`projects.<name>.setup`": Setup,
    "`projects.<name>.gates[]`": Gate,
    "`projects.<name>.merge`": Merge,
    "`agents.<name>`": Agent,
    "`agents.<name>.patterns[]`": Pattern,
    "`credentials.<name>`": Credential,
    "`prices.<glob>`": Price,
    "`budgets`": Budgets,
    "`projects.<name>.budget`": Budget,
    "`health`": Health,
    "`retry`": Retry,
    "`heal`": Heal,
    "`disk`": Disk,
    "`intake`": Intake,
}
NEVER_WRITTEN = {(Config, "origins"), (Project, "name")}
NO_DEFAULT = {"required": "required", "none": None, "below": ""}


def _rows(text: str, heading: str) -> dict[str, str]:
    """key -> default, of the table below a heading."""
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert section, f"no section {heading}"
    return dict(re.findall(r"^\| `([a-z0-9_]+)` \| (.*?) \|", section, re.MULTILINE))


def _fields(kind: type) -> Iterator[tuple[str, Field[Any]]]:
    assert is_dataclass(kind)
    for field in fields(kind):
        if (kind, field.name) not in NEVER_WRITTEN:
            yield WRITTEN.get(field.name, field.name), field


def _default(field: Field[Any]) -> object:
    """As a person would write it in YAML."""
    value = field.default if field.default is not MISSING else None
    if field.default_factory is not MISSING:
        value = field.default_factory()
    elif field.default is MISSING:
        return "required"
    return _plain(value)


def _plain(value: object) -> object:
    match value:
        case StrEnum():
            return value.value
        case ((signal.Signals(), _), *_):
            assert isinstance(value, tuple)
            return [x for number, seconds in value for x in (number.name.removeprefix("SIG"), seconds)]
        case tuple():
            return list(value)
        case Mapping():
            return dict(value)
        case _ if is_dataclass(value):
            return ""
        case _:
            return value


def _written(text: str) -> object:
    return yaml.safe_load(text.strip("`")) if text.startswith("`") else NO_DEFAULT.get(text, text)


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_of_the_configuration_is_documented_with_its_default(heading: str) -> None:
    kind = SECTIONS[heading]
    rows = _rows(CONFIGURATION, heading)
    assert set(rows) == {name for name, _ in _fields(kind)}
    for name, field in _fields(kind):
        assert _written(rows[name]) == _default(field), f"{heading}: {name}"


def test_every_part_of_the_configuration_has_a_section() -> None:
    known: set[type] = set()
    todo: list[Any] = [Config]
    while todo:
        kind = todo.pop()
        if is_dataclass(kind) and isinstance(kind, type) and kind not in known:
            known.add(kind)
            todo += typing.get_type_hints(kind).values()
        todo += typing.get_args(kind)
    assert known == set(SECTIONS.values())


def test_every_placeholder_and_outcome_is_documented() -> None:
    words = CONFIGURATION.partition("## Placeholders")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `\{(\w+)\}`", words, re.MULTILINE) == list(PLACEHOLDERS)
    table = CONFIGURATION.partition("## Outcomes")[2].partition("\n## ")[0]
    named = [
        name
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(named) == sorted(OutcomeName)


def test_the_examples_of_the_configuration_are_valid(tmp_path: Any) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", CONFIGURATION, re.DOTALL)
    assert examples
    for text in examples:
        (tmp_path / "config.yaml").write_text(text)
        load(tmp_path / "config.yaml")


def test_every_field_of_an_item_is_documented_with_its_default() -> None:
    rows = _rows(ITEMS, "Fields")
    assert set(rows) == set(Draft.model_fields)
    for name, field in Draft.model_fields.items():
        if field.is_required():
            assert rows[name] == "required"
        elif rows[name].startswith("`") and "." not in rows[name]:
            default = {"priority": "medium"}.get(name, field.default)
            assert _written(rows[name]) == default, name


def test_every_other_word_for_a_field_is_documented() -> None:
    for word in ALIASES:
        assert f"`{word}`" in ITEMS

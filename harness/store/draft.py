"""One item as a person writes it: its fields, and what is wrong with any of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from harness.clock import parse_rfc3339
from harness.store.loading import shown

PRIORITIES = {"high": 2, "medium": 5, "low": 8}
ALIASES = {"rig": "project", "deps": "depends_on", "dependencies": "depends_on", "name": "title"}


def _priority(value: object) -> object:
    if isinstance(value, str):
        word = value.strip().lower()
        if word in PRIORITIES:
            return PRIORITIES[word]
        if word.isdecimal():
            return int(word)
        raise ValueError("must be high, medium, low, or a number from 0 (first) to 9")
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be high, medium, low, or a number from 0 (first) to 9")
    return value


MAX_AGENTS = 100
MAX_ENTRIES = 1000
"""Of files, protected, labels, and of dependencies that are objects: an entry costs microseconds to check."""
MAX_DEPENDENCIES = 10_000
"""As many as a batch has items: one may wait for all others."""
MAX_PARTS = 4_000
"""Values in one field (`source`, in practice): 4 ms for each thousand until they are stored."""
MAX_DEPTH = 32
"""Levels of lists and objects in one item. Far more than people write, far less than what a stack can carry."""


def _plain(value: object) -> None:
    """Refuse what cannot be stored as JSON text, whatever field it stands in. YAML can hold more than JSON does."""
    level, depth, count = [value], 0, 0
    while level:
        below: list[Any] = []
        deeper = False
        for x in level:
            kind = type(x)
            if kind is str:
                _text(x)  # type: ignore[arg-type]
            elif kind is list:
                deeper = True
                below += x  # type: ignore[arg-type]
            elif kind is dict:
                deeper = True
                for key, inside in x.items():  # type: ignore[attr-defined]
                    if type(key) is not str:
                        raise ValueError("has a key that is not text; quote it")
                    _text(key)
                    below.append(inside)
            elif kind is float:
                if not math.isfinite(x):  # type: ignore[arg-type]
                    raise ValueError("contains a number that is not finite")
            elif kind is not int and kind is not bool and x is not None:
                raise ValueError(f"contains a {kind.__name__}, which JSON cannot hold")
        if deeper and depth == MAX_DEPTH:
            raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
        level, depth, count = below, depth + 1, count + len(below)
        if count > MAX_PARTS:
            raise ValueError(f"has more than {MAX_PARTS} values")


def _text(value: str) -> None:
    if "\0" in value:
        raise ValueError("contains a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("contains half of a surrogate pair, which is no text") from None


def _at_most(limit: int) -> Callable[[object], object]:
    """A text alone is a list of one. What is too long is refused before its entries are looked at."""

    def check(value: object) -> object:
        if isinstance(value, str):
            return [value]
        if isinstance(value, (list, dict)) and len(value) > limit:
            raise ValueError(f"has {len(value)} entries, at most {limit} are possible")
        return value

    return check


def _only_listed(limit: int) -> Callable[[object], object]:
    check = _at_most(limit)
    return lambda value: value if isinstance(value, str) else check(value)


Text = Annotated[str, Field(max_length=200)]
Id = Annotated[str, Field(min_length=1, max_length=200)]
Globs = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=4096)]], BeforeValidator(_only_listed(MAX_ENTRIES))
]


class Dependency(BaseModel):
    """One entry of depends_on, as an object; a bare string means a required one."""

    model_config = ConfigDict(extra="forbid", strict=True)
    id: Id
    optional: bool = False


def _dependencies(value: object) -> object:
    listed = _at_most(MAX_DEPENDENCIES)(value)
    if (
        isinstance(listed, list)
        and sum(type(x) is not str or not 0 < len(x) <= 200 for x in listed) > MAX_ENTRIES
    ):
        raise ValueError(
            f"has more than {MAX_ENTRIES} entries that are not just an id of up to 200 characters"
        )
    return listed


def _dependency(value: object) -> object:
    if isinstance(value, (str, Dependency)):
        return {"id": value} if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise ValueError('must be the id of an item, or {"id": ..., "optional": true}')
    return value


class Draft(BaseModel):
    """One item as a person writes it. Only `prompt` is required."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Id | None = None
    title: Annotated[str, Field(max_length=500)] = ""
    prompt: Annotated[str, Field(min_length=1)]
    project: str | None = None
    agent: Annotated[list[str], BeforeValidator(_at_most(MAX_AGENTS))] = []
    priority: Annotated[int, BeforeValidator(_priority), Field(ge=0, le=9)] = 5
    depends_on: Annotated[
        list[Annotated[Dependency, BeforeValidator(_dependency)]], BeforeValidator(_dependencies)
    ] = []
    convoy: Text = ""
    files: Globs = []
    protected: Globs = []
    not_before: str | None = None
    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=30 * 86400)] | None = None
    max_budget_usd: Annotated[float, Field(gt=0, le=1e9)] | None = None
    max_budget_tokens: Annotated[int, Field(gt=0, le=10**15)] | None = None
    commit: Literal["required", "optional", "none"] = "required"
    labels: Annotated[dict[str, str], BeforeValidator(_only_listed(MAX_ENTRIES))] = {}
    source: dict[str, Any] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: object) -> object:
        if not isinstance(value, Dependency):
            _plain(value)
        return value

    @field_validator("prompt")
    @classmethod
    def _has_words(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty")
        return value

    @field_validator("id")
    @classmethod
    def _printable(cls, value: str | None) -> str | None:
        if value is not None and (not value.isprintable() or value != value.strip()):
            raise ValueError("must be printable text without surrounding spaces")
        return value

    @field_validator("not_before")
    @classmethod
    def _moment(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_rfc3339(value)
            except (ValueError, OverflowError):
                raise ValueError("is not an RFC 3339 time such as 2027-01-01T00:00:00Z") from None
        return value

    @field_validator("files", "protected")
    @classmethod
    def _inside(cls, value: list[str]) -> list[str]:
        for pattern in value:
            if pattern[0] == "/" or (".." in pattern and ".." in PurePosixPath(pattern).parts):
                raise ValueError(f"{shown(pattern)} leaves the repository: write paths relative to its root")
        return value

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(d.id for d in self.depends_on)

    @property
    def optional(self) -> tuple[str, ...]:
        return tuple(d.id for d in self.depends_on if d.optional)

    def digest(self) -> str:
        """sha256 of the canonical content: the same words again are the same item."""
        text = json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

"""One item as a person writes it: its fields, and what is wrong with any of them."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from harness.clock import parse_rfc3339

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


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


MAX_DEPTH = 32
"""Levels of lists and objects in one item. Far more than people write, far less than what a stack can carry."""


def _plain(value: object, depth: int = 0) -> None:
    """Refuse what cannot be stored as JSON text, whatever field it stands in. YAML can hold more than JSON does."""
    match value:
        case str():
            if "\0" in value:
                raise ValueError("contains a NUL character")
            if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                raise ValueError("contains half of a surrogate pair, which is no text")
        case bool() | int() | None:
            pass
        case float():
            if not math.isfinite(value):
                raise ValueError("contains a number that is not finite")
        case list() | dict():
            if depth == MAX_DEPTH:
                raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
            for x in value.items() if isinstance(value, dict) else value:
                for part in x if isinstance(x, tuple) else (x,):
                    _plain(part, depth + 1)
            if isinstance(value, dict) and not all(isinstance(k, str) for k in value):
                raise ValueError("has a key that is not text; quote it")
        case _:
            raise ValueError(f"contains a {type(value).__name__}, which JSON cannot hold")


Text = Annotated[str, Field(max_length=200)]
Id = Annotated[str, Field(min_length=1, max_length=200)]


class Dependency(BaseModel):
    """One entry of depends_on, as an object; a bare string means a required one."""

    model_config = ConfigDict(extra="forbid", strict=True)
    id: Id
    optional: bool = False


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
    agent: Annotated[list[str], BeforeValidator(_listed)] = []
    priority: Annotated[int, BeforeValidator(_priority), Field(ge=0, le=9)] = 5
    depends_on: Annotated[
        list[Annotated[Dependency, BeforeValidator(_dependency)]], BeforeValidator(_listed)
    ] = []
    convoy: Text = ""
    files: list[Annotated[str, Field(min_length=1, max_length=4096)]] = []
    protected: list[Annotated[str, Field(min_length=1, max_length=4096)]] = []
    not_before: str | None = None
    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=30 * 86400, strict=False)] | None = None
    max_budget_usd: Annotated[float, Field(gt=0, le=1e9, strict=False)] | None = None
    commit: Literal["required", "optional", "none"] = "required"
    labels: dict[str, str] = {}
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
            path = PurePosixPath(pattern)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{pattern!r} leaves the repository: write paths relative to its root")
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

"""A configuration as a flat list for people: every value in force and where it comes from. Secrets are hidden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from harness.config.models import WRITTEN, Config
from harness.config.problems import Path, dotted
from harness.dataclass import dataclass

HIDDEN = "(hidden)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value of a configuration for people; secrets are hidden."""

    path: str
    value: str
    origin: str


def settings(config: Config) -> tuple[Setting, ...]:
    """Everything that is in force, flat and in order, for `config show --origin`."""
    return tuple(_settings(config, (), config))


def _settings(value: Any, path: Path, config: Config) -> Iterator[Setting]:
    if is_dataclass(value):
        for field in fields(value):
            if field.name == "origins" or (
                path[:1] == ("projects",) and len(path) == 2 and field.name == "name"
            ):
                continue
            yield from _settings(
                getattr(value, field.name), (*path, WRITTEN.get(field.name, field.name)), config
            )
    elif isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _settings(below, (*path, key), config)
    elif isinstance(value, tuple) and any(is_dataclass(v) for v in value):
        for i, below in enumerate(value):
            yield from _settings(below, (*path, i), config)
    else:
        yield Setting(path=dotted(path), value=_plain(value, path), origin=config.origin(dotted(path)))


def _plain(value: Any, path: Path) -> str:
    if "env" in path and len(path) > 3:
        return HIDDEN
    if path[-1] == "stop":
        words = (f"{sig.name[3:]}, {seconds:g}" if seconds else sig.name[3:] for sig, seconds in value)
        return "[" + ", ".join(words) + "]"
    if isinstance(value, tuple):
        return "[" + ", ".join(str(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)

"""Everything that decides what the configuration says: the text of config.yaml and what overrides it.

Order of origin: option > ``HARNESS_*`` > file > default. Only scalar settings can be overridden: those at the top
(``HARNESS_WORKERS``) and those one level below (``HARNESS_HEALTH_BEAT_S``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Self

from harness.config.models import Config
from harness.dataclass import dataclass
from harness.errors import ConfigError

MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Two equal sources say the same, whoever reads them."""

    path: Path
    text: str
    variables: Mapping[str, str]
    """Setting -> the text of its variable in the environment."""
    options: Mapping[str, object]
    """Setting -> the value of its option on a command line."""

    @classmethod
    def read(cls, path: Path, options: Mapping[str, object], environ: Mapping[str, str]) -> Self:
        """Raises ConfigError when there is no such file, or it is no text."""
        given = [name for name in scalar_settings() if environ.get(variable(name))]
        return cls(
            path=path,
            text=_text(path),
            variables={name: environ[variable(name)] for name in given},
            options={name: options[name] for name in scalar_settings() if options.get(name) is not None},
        )


def scalar_settings() -> Iterator[str]:
    """Dotted names of the settings that options and the environment can override."""
    for field in fields(Config):
        section: Any = field.default_factory
        if is_dataclass(section):
            yield from (f"{field.name}.{b.name}" for b in fields(section) if b.default_factory is MISSING)
        elif field.name != "v" and field.default_factory is MISSING and field.init:
            yield field.name


def variable(setting: str) -> str:
    """The name that overrides a setting from the environment."""
    return "HARNESS_" + setting.upper().replace(".", "_")


def _text(path: Path) -> str:
    remedy = "make one with: harnessctl init"
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError("there is no configuration", where=path, remedy=remedy) from None
    except OSError as e:
        raise ConfigError(f"cannot be read: {e.strerror}", where=path, remedy="see its permissions") from e
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"is bigger than {MAX_BYTES >> 20} MiB", where=path, remedy=remedy)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise ConfigError("is not UTF-8", where=f"{path}:{line}", remedy="save it as UTF-8") from None

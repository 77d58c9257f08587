"""What was validated, kept as JSON in `state/run/`: processes that start read it instead of validating config.yaml again.

It holds as long as all that it was made of is the same: every character of config.yaml, what overrides it, and this
program. Whatever else is wrong with it (damaged, of another version, planted by somebody) means: validate. It is only
ever read and written by us; agents may do neither (`Layout.closed`).
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union

from harness import __version__
from harness.atomicfs import replace_file
from harness.config.models import Config
from harness.config.source import MAX_BYTES, Source

VERSION = 1


def read(path: Path, source: Source) -> Config | None:
    """What was kept of `source`, or None."""
    try:
        data = json.loads(_bytes(path))
        if data["v"] != VERSION or data["source"] != _identity(source):
            return None
        config: Config = _value(Config, data["config"])
        object.__setattr__(config, "origins", _value(Mapping[str, str], data["origins"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return config


def write(path: Path, source: Source, config: Config) -> None:
    """Keep `config`, which `source` says, for those who come later. That it cannot be kept is no failure."""
    plain = asdict(config)
    kept = {"v": VERSION, "source": _identity(source), "origins": plain.pop("origins"), "config": plain}
    with contextlib.suppress(OSError, TypeError):  # the next one validates for itself
        replace_file(path, json.dumps(kept).encode() + b"\n", durable=False, mode=0o600)


def _identity(source: Source) -> dict[str, Any]:
    """All that decides what a validation says; the text itself and no digest of it, which costs more than it saves."""
    return {
        "program": [__version__, *_program()],
        "path": str(source.path),
        "text": source.text,
        "variables": dict(source.variables),
        "options": dict(source.options),
    }


def _program() -> list[list[object]]:
    """A working copy changes without changing its version: the files that judge."""
    with os.scandir(os.path.dirname(__file__)) as found:
        files = sorted((e.name, e.stat()) for e in found if e.name.endswith(".py"))
    return [[name, seen.st_size, seen.st_mtime_ns] for name, seen in files]


def _bytes(path: Path) -> bytes:
    """Raises OSError, or ValueError for a file that is not ours alone, or too big."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        seen = os.fstat(fd)
        ours = stat.S_ISREG(seen.st_mode) and seen.st_uid == os.geteuid() and not seen.st_mode & 0o077
        if not ours or seen.st_size > 16 * MAX_BYTES:
            raise ValueError("not what we have written")
        return file.read()


def _value(kind: Any, data: Any) -> Any:
    """JSON -> a value of the annotated type. Raises TypeError or ValueError when it is none."""
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if is_dataclass(kind):
        return _part(kind, data)
    if origin in (UnionType, Union):
        return None if data is None else _value(next(a for a in arguments if a is not type(None)), data)
    if origin is tuple:
        each = [arguments[0]] * len(data) if arguments[-1] is ... else arguments
        return tuple(_value(below, v) for below, v in zip(each, _is(list, data), strict=True))
    if origin is Literal:
        if data not in arguments:
            raise ValueError(data)
        return data
    if origin is not None:
        return {_is(str, k): _value(arguments[1], v) for k, v in _is(dict, data).items()}
    if issubclass(kind, Enum):
        return kind(data)
    return _is(kind, data)


def _part(kind: Any, data: Any) -> Any:
    """Every field must be there: what is left out is no default, it is damage."""
    hints = typing.get_type_hints(kind)
    return kind(**{f.name: _value(hints[f.name], data[f.name]) for f in fields(kind) if f.init})


def _is(kind: Any, data: Any) -> Any:
    if type(data) is not kind:
        raise TypeError(f"{type(data).__name__} instead of {kind.__name__}")
    return data

"""What a single value in config.yaml must look like: annotated types whose validators say what is wrong in words."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from harness.model import SLUG

PLACEHOLDERS = ("prompt", "prompt_file", "worktree", "session", "model", "run_id", "run_dir")
PLACEHOLDER = re.compile(r"(?<![{$])\{([a-z][a-z_]*)\}(?!\})")
"""``{word}`` in an argv or env value. ``${word}`` is not one; ``{{word}}`` stands for a literal ``{word}``."""
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""``${NAME}`` in an agent's env or a credential's file: from the daemon's environment, when the agent starts."""
URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|[^/\s@:]+@[^/\s:]+:)")
"""``https://``, ``ssh://``, ``file://`` … or the scp-like ``git@host:path``."""


def _slug(value: str) -> str:
    if not SLUG.match(value):
        raise PydanticCustomError("slug", "must be 1 to 40 of a-z, 0-9 and -")
    return value


def _branch(value: str) -> str:
    """The rules of git-check-ref-format(1) for a branch, near enough to fail early; git has the last word."""
    if value.startswith("refs/"):
        raise PydanticCustomError("branch", "must be a branch's short name, without refs/heads/")
    bad = re.search(r"\.\.|@\{|[\x00-\x20~^:?*\[\\\x7f]|//|^[/.-]|[/.]$|/\.|\.lock(/|$)", value)
    if bad or value in ("", "@", "HEAD"):
        raise PydanticCustomError("branch", "is not a name that git allows for a branch")
    return value


def _inside(value: str) -> str:
    """A path or glob below the repository."""
    parts = value.split("/")
    if not value or value.startswith("/") or ".." in parts or "\0" in value:
        raise PydanticCustomError(
            "inside", "must be a path inside of the repository, without a leading / or .."
        )
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as e:
        raise PydanticCustomError("regex", "is not a regular expression: {why}", {"why": str(e)}) from None
    return value


def _retry_regex(value: str) -> str:
    if re.compile(_regex(value)).groups < 1:
        raise PydanticCustomError(
            "regex", "needs a group that holds the seconds, for example 'retry.after: (\\d+)'"
        )
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise PydanticCustomError("variable", "is not a name of an environment variable")
    return value


def _variable_glob(value: str) -> str:
    _variable(value.removesuffix("*"))
    return value


def _text_value(value: Any) -> Any:
    """Environment values are text; a plain number in YAML is meant as its digits."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _references(value: str) -> str:
    if "${" in REFERENCE.sub("", value):
        raise PydanticCustomError("reference", "holds a ${ that is not a ${NAME}")
    return value


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _nonempty(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("empty", "must not be empty")
    if "\0" in value:
        raise PydanticCustomError("empty", "must not hold a NUL character")
    return value


def _location(value: str, info: ValidationInfo) -> str:
    """A URL as it is, anything else as an absolute path relative to the configuration file."""
    base = (info.context or {}).get("base")
    if URL.match(value) or base is None:
        return value
    return str((Path(base) / Path(value).expanduser()).resolve())


def _file(value: str, info: ValidationInfo) -> str:
    return value if value.startswith("${") else _location(value, info)


def _ladder(value: Any) -> Any:
    """``[INT, 5, TERM, 5, KILL]`` -> ((SIGINT, 5.0), (SIGTERM, 5.0), (SIGKILL, 0.0))."""
    if not isinstance(value, list | tuple) or all(isinstance(step, tuple) for step in value):
        return value
    steps: list[tuple[signal.Signals, float]] = []
    for word in value:
        if isinstance(word, str):
            name = word.upper() if word.upper().startswith("SIG") else f"SIG{word.upper()}"
            if name not in signal.Signals.__members__:
                raise PydanticCustomError("ladder", "has an unknown signal {word}", {"word": word})
            steps.append((signal.Signals[name], 0.0))
        elif isinstance(word, int | float) and not isinstance(word, bool) and 0 <= word <= 600 and steps:
            steps[-1] = (steps[-1][0], float(word))
        else:
            raise PydanticCustomError(
                "ladder", "must be signals, each followed by seconds, as in [INT, 5, TERM, 5, KILL]"
            )
    return tuple(steps)


Text = Annotated[str, AfterValidator(_nonempty)]
Slug = Annotated[str, AfterValidator(_slug)]
Branch = Annotated[str, AfterValidator(_branch)]
Inside = Annotated[str, AfterValidator(_inside)]
Regex = Annotated[str, AfterValidator(_regex)]
RetryRegex = Annotated[str, AfterValidator(_retry_regex)]
Variable = Annotated[str, AfterValidator(_variable)]
VariableGlob = Annotated[str, AfterValidator(_variable_glob)]
EnvValue = Annotated[
    str, BeforeValidator(_text_value, json_schema_input_type=str | float), AfterValidator(_references)
]
Location = Annotated[str, AfterValidator(_nonempty), AfterValidator(_location)]
File = Annotated[str, AfterValidator(_nonempty), AfterValidator(_references), AfterValidator(_file)]
Truth = Annotated[bool, Field(strict=True)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
Version = Annotated[int, Field(strict=True)]
Seconds = Annotated[float, Field(strict=True, gt=0, le=31_536_000, allow_inf_nan=False)]
Ladder = Annotated[
    tuple[tuple[signal.Signals, float], ...],
    BeforeValidator(_ladder, json_schema_input_type=list[str | float]),
]

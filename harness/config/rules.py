"""What a single value in config.yaml must look like: annotated types whose rules say what is wrong in words.

The rules are plain Python. pydantic asks an annotation how it is checked, and is imported by what asks: who only reads
what was validated before never loads it.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, cast

from harness.config.references import REFERENCE
from harness.model import SLUG

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|[^/\s@:]+@[^/\s:]+:)")
"""``https://``, ``ssh://``, ``file://`` … or the scp-like ``git@host:path``."""


class After:
    """A rule for a value of the type: returns it, or raises ValueError with words for people."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        self._rule = rule

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core.core_schema import no_info_after_validator_function

        return no_info_after_validator_function(self._rule, handler(kind))


class Before:
    """Turns what people may write, `written`, into a value of the type; what it does not know it leaves alone."""

    def __init__(self, turn: Callable[[Any], Any], written: Any) -> None:
        self._turn = turn
        self._written = written

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core.core_schema import no_info_before_validator_function

        written = handler.generate_schema(self._written)
        return no_info_before_validator_function(self._turn, handler(kind), json_schema_input_schema=written)


class Limits:
    """Limits of a number or a length, in pydantic's words (``ge``, ``min_length``); `strict`: nothing is converted."""

    def __init__(self, **limits: float) -> None:
        self._limits = limits

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return cast("CoreSchema", {**handler(kind), **self._limits})


def _slug(value: str) -> str:
    if not SLUG.match(value):
        raise ValueError("must be 1 to 40 of a-z, 0-9 and -")
    return value


def _branch(value: str) -> str:
    """The rules of git-check-ref-format(1) for a branch, near enough to fail early; git has the last word."""
    if value.startswith("refs/"):
        raise ValueError("must be a branch's short name, without refs/heads/")
    bad = re.search(r"\.\.|@\{|[\x00-\x20~^:?*\[\\\x7f]|//|^[/.-]|[/.]$|/\.|\.lock(/|$)", value)
    if bad or value in ("", "@", "HEAD"):
        raise ValueError("is not a name that git allows for a branch")
    return value


def _inside(value: str) -> str:
    """A path or glob below the repository."""
    parts = value.split("/")
    if not value or value.startswith("/") or ".." in parts or "\0" in value:
        raise ValueError("must be a path inside of the repository, without a leading / or ..")
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as e:
        raise ValueError(f"is not a regular expression: {e}") from None
    return value


def _retry_regex(value: str) -> str:
    if re.compile(_regex(value)).groups < 1:
        raise ValueError("needs a group that holds the seconds, for example 'retry.after: (\\d+)'")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError("is not a name of an environment variable")
    return value


def _variable_glob(value: str) -> str:
    _variable(value.removesuffix("*"))
    return value


def _text_value(value: Any) -> Any:
    """Environment values are text; a plain number in YAML is meant as its digits."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _references(value: str) -> str:
    if "${" in REFERENCE.sub("", value):
        raise ValueError("holds a ${ that is not a ${NAME}")
    return value


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _nonempty(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


def _ladder(value: Any) -> Any:
    """``[INT, 5, TERM, 5, KILL]`` -> ((SIGINT, 5.0), (SIGTERM, 5.0), (SIGKILL, 0.0))."""
    if not isinstance(value, list | tuple) or all(isinstance(step, tuple) for step in value):
        return value
    steps: list[tuple[signal.Signals, float]] = []
    for word in value:
        if isinstance(word, str):
            name = word.upper() if word.upper().startswith("SIG") else f"SIG{word.upper()}"
            if name not in signal.Signals.__members__:
                raise ValueError(f"has an unknown signal {word}")
            steps.append((signal.Signals[name], 0.0))
        elif isinstance(word, int | float) and not isinstance(word, bool) and 0 <= word <= 600 and steps:
            steps[-1] = (steps[-1][0], float(word))
        else:
            raise ValueError("must be signals, each followed by seconds, as in [INT, 5, TERM, 5, KILL]")
    return tuple(steps)


Text = Annotated[str, After(_nonempty)]
Slug = Annotated[str, After(_slug)]
Branch = Annotated[str, After(_branch)]
Inside = Annotated[str, After(_inside)]
Regex = Annotated[str, After(_regex)]
RetryRegex = Annotated[str, After(_retry_regex)]
Variable = Annotated[str, After(_variable)]
VariableGlob = Annotated[str, After(_variable_glob)]
EnvValue = Annotated[str, Before(_text_value, str | float), After(_references)]
File = Annotated[str, After(_nonempty), After(_references)]
Truth = Annotated[bool, Limits(strict=True)]
Names = Annotated[tuple[str, ...], Before(_listed, str | list[str])]
Count = Annotated[int, Limits(strict=True, ge=0, le=1_000_000_000)]
Dollars = Annotated[float, Limits(strict=True, ge=0, le=1_000_000, allow_inf_nan=False)]
Tokens = Annotated[int, Limits(strict=True, ge=0, le=10**15)]
Version = Annotated[int, Limits(strict=True)]
Seconds = Annotated[float, Limits(strict=True, gt=0, le=31_536_000, allow_inf_nan=False)]
Ladder = Annotated[tuple[tuple[signal.Signals, float], ...], Before(_ladder, list[str | float])]

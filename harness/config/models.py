"""What config.yaml may say, as frozen values with their defaults and limits.

Plain dataclasses: pydantic validates them (`loading.py`) without being their base, so `Project.copy` is just a field.
Cross checks between parts are in `problems.py`.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from harness.model import SLUG

VERSION = 1
ADAPTERS = ("command",)
"""The adapters of this version. Naming another one is an error that lists these."""
BUILTIN_GATES = ("clean", "scope", "protected", "commit")
PLACEHOLDERS = ("prompt", "prompt_file", "worktree", "session", "model", "run_id", "run_dir")
PLACEHOLDER = re.compile(r"(?<![{$])\{([a-z][a-z_]*)\}(?!\})")
"""``{word}`` in an argv or env value. ``${word}`` is not one; ``{{word}}`` stands for a literal ``{word}``."""
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""``${NAME}`` in an agent's env or a credential's file: from the daemon's environment, when the agent starts."""
URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|[^/\s@:]+@[^/\s:]+:)")
"""``https://``, ``ssh://``, ``file://`` … or the scp-like ``git@host:path``."""
STRICT = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Durability(StrEnum):
    POWER = "power"  # survives power loss: everything is fsynced
    PROCESS = "process"  # survives the crash of any process, not power loss


class Sandbox(StrEnum):
    AUTO = "auto"  # the best that this machine offers
    BWRAP = "bwrap"
    LANDLOCK = "landlock"
    NONE = "none"


class Publish(StrEnum):
    PUSH = "push"  # to the repository that `path` names
    NONE = "none"  # merged commits stay in the hub


class Checkout(StrEnum):
    """What to do when `target` is checked out in the person's repository."""

    REFUSE = "refuse"
    UPDATE = "update"  # clean checkouts only


class CommitBy(StrEnum):
    AGENT = "agent"  # uncommitted changes are a failure
    HARNESS = "harness"
    EITHER = "either"


class PromptBy(StrEnum):
    """How a tool gets its prompt."""

    ARGUMENT = "argument"
    STDIN = "stdin"
    FILE = "file"


class OutcomeName(StrEnum):
    """How an agent's run ended, as it is named in config.yaml, logs and summaries."""

    OK = "ok"
    MAX_TURNS = "max_turns"
    BUDGET = "budget"
    RATE_LIMIT = "rate_limit"
    USAGE_LIMIT = "usage_limit"
    OVERLOADED = "overloaded"
    AUTH = "auth"
    BILLING = "billing"
    BAD_REQUEST = "bad_request"
    REFUSAL = "refusal"
    INTERRUPTED = "interrupted"
    STALLED = "stalled"
    TIMED_OUT = "timed_out"
    CRASH = "crash"
    NO_RESULT = "no_result"
    EMPTY = "empty"


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
    _variable(value[:-1] + "x" if value.endswith("*") else value)
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
    from pathlib import Path

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """When a worker or an agent counts as dead, hung or too slow."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    beat_s: Seconds = 5.0
    hang_s: Seconds = 120.0
    """A worker whose beat is older *and* whose processes use no CPU is hung."""
    stall_s: Seconds = 900.0
    """An agent that neither writes nor computes for so long is stopped."""
    attempt_timeout_s: Seconds = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    max_attempts: Annotated[int, Field(strict=True, ge=1, le=1000)] = 3
    first_delay_s: Annotated[float, Field(strict=True, ge=0, le=86_400)] = 10.0
    max_delay_s: Annotated[float, Field(strict=True, ge=0, le=86_400)] = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heal:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    rounds: Annotated[int, Field(strict=True, ge=0, le=100)] = 3
    """How often a red gate goes back to the same session within one attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Nothing is claimed while less than this is free."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    floor_mb: Count = 512
    floor_inodes: Count = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """How long a drop that cannot be read yet is left alone, and how big it may be."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    grace_s: Annotated[float, Field(strict=True, ge=0, le=3600)] = 2.0
    quiet_s: Annotated[float, Field(strict=True, ge=0, le=3600)] = 2.0
    max_bytes: Annotated[int, Field(strict=True, ge=1024, le=1 << 30)] = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A command that must pass (exit 0), run by ``sh -c`` in the worktree."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Slug
    run: Text
    timeout_s: Seconds = 600.0
    required: Truth = True
    """False: its failure is reported and does not stop the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Prepares a worktree: run when it is new or when one of `inputs` changed."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    run: Text
    inputs: tuple[Inside, ...] = ()
    timeout_s: Seconds = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    publish: Publish = Publish.PUSH
    gates: tuple[Slug, ...] = ()
    """Names of the project's gates to run again on the merged tree."""
    checkout: Checkout = Checkout.REFUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A repository that agents work on."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: str
    """The key below `projects`; never written inside."""
    path: Location
    """The person's clone or bare repository (absolute), or a URL."""
    target: Branch = "main"
    agent: Names = ()
    """The default agent, and fallbacks. With one agent configured it is the default."""
    setup: Setup | None = None
    copy: tuple[Inside, ...] = ()
    """Untracked files that every worktree needs."""
    keep: tuple[Inside, ...] = ()
    """Untracked paths that may stay in a reused worktree: caches."""
    gates: tuple[Gate, ...] = ()
    merge: Merge = field(default_factory=Merge)
    protected: tuple[Inside, ...] = ()
    """Globs that no item may change, unless it says so."""
    commit_by: CommitBy = CommitBy.EITHER

    def gate(self, name: str) -> Gate:
        """Raises KeyError for a name that is not configured (`merge.gates` is checked when loading)."""
        return {gate.name: gate for gate in self.gates}[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A line of output that says how the run ended, whatever the exit code."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    match: Regex
    outcome: Annotated[OutcomeName, Field(alias="class")]
    retry_after: Annotated[str, AfterValidator(_retry_regex)] | None = None
    """Its first group holds the seconds to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A tool that workers run."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    adapter: Literal["command"]
    argv: Annotated[tuple[Text, ...], Field(min_length=1)]
    resume_argv: tuple[Text, ...] = ()
    """Used instead of `argv` when a session goes on (heal rounds). Empty: `argv` again."""
    prompt: PromptBy = PromptBy.FILE
    model: str = ""
    env: Annotated[Mapping[Variable, EnvValue], Field(repr=False)] = field(default_factory=dict, repr=False)
    env_pass: tuple[VariableGlob, ...] = ()
    """Variables of the daemon to hand on; a trailing * is a prefix. Nothing else is inherited."""
    exit_codes: Mapping[str, OutcomeName] = field(default_factory=dict)
    """``{0: ok, 75: rate_limit, "*": crash}``; what is not listed: 0 is ok, the rest a crash."""
    patterns: tuple[Pattern, ...] = ()
    """First match wins, before exit codes."""
    stop: Ladder = (
        (signal.SIGINT, 5.0),
        (signal.SIGTERM, 5.0),
        (signal.SIGKILL, 0.0),
    )
    credential: str | None = None
    stall_s: Seconds | None = None
    """Instead of health.stall_s."""
    timeout_s: Seconds | None = None
    """Of one run of the tool, within the attempt's own limit."""
    max_output_mb: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A secret that an agent needs. Only the agent's own process ever gets it."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    variable: Variable
    """Its name in the agent's environment."""
    file: File | None = None
    """Where it is read from when the agent starts. None: from the daemon's own environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole of config.yaml."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    v: Version
    workers: Annotated[int, Field(strict=True, ge=0, le=1000)] = 3
    durability: Durability = Durability.POWER
    sandbox: Sandbox = Sandbox.AUTO
    drain_s: Annotated[float, Field(strict=True, ge=0, le=604_800)] = 600.0
    """How long running attempts may go on after the first TERM."""
    projects: Mapping[Slug, Project] = field(default_factory=dict)
    """`rigs` is accepted for `projects`."""
    agents: Mapping[Slug, Agent] = field(default_factory=dict)
    credentials: Mapping[Slug, Credential] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    retry: Retry = field(default_factory=Retry)
    heal: Heal = field(default_factory=Heal)
    disk: Disk = field(default_factory=Disk)
    intake: Intake = field(default_factory=Intake)
    origins: Mapping[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Dotted setting -> where its value comes from; only what is not a default."""

    @property
    def default_project(self) -> str | None:
        """The project of items that name none: the only one, or None."""
        return next(iter(self.projects)) if len(self.projects) == 1 else None

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """For editors: what config.yaml may hold."""
        schema = TypeAdapter(cls).json_schema()
        project = schema["$defs"]["Project"]
        project["properties"].pop("name")
        project["required"].remove("name")
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "harness config.yaml",
        } | schema

    def origin(self, setting: str) -> str:
        """Where a value comes from: ``option``, ``HARNESS_WORKERS``, ``config.yaml:3:10`` or ``default``."""
        return self.origins.get(setting, "default")

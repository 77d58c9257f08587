"""What config.yaml may say, as frozen values with their defaults and limits.

Plain dataclasses: pydantic validates them (`validation.py`) without being their base or being imported here, so
`Project.copy` is just a field, and a worker loads neither. Cross checks between parts are in `problems.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from harness.config.references import expanded
from harness.config.rules import (
    Branch,
    Count,
    Dollars,
    EnvValue,
    File,
    Inside,
    Ladder,
    Limits,
    Names,
    Regex,
    RetryRegex,
    Seconds,
    Slug,
    Text,
    Tokens,
    Truth,
    Variable,
    VariableGlob,
    Version,
)
from harness.dataclass import dataclass

VERSION = 1
ADAPTERS = ("claude", "codex", "gemini", "opencode", "command")
"""The adapters of this version. Naming another one is an error that lists these."""
BUILTIN_GATES = ("clean", "scope", "protected", "commit")
WRITTEN = {"outcome": "class"}
"""Fields whose key in config.yaml is a word that Python keeps for itself."""


class Part:
    """A mapping in config.yaml: unknown keys are refused, and what is refused is not shown."""

    __slots__ = ()
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "hide_input_in_errors": True}


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


class Instructions(StrEnum):
    """How the rules and the evidence of earlier attempts are added below an item's prompt."""

    TEXT = "text"  # as Markdown, for a tool that reads
    COMMENT = "comment"  # behind "# ": the whole is still a script when the prompt is one
    NONE = "none"  # not at all


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Health(Part):
    """When a worker or an agent counts as dead, hung or too slow."""

    beat_s: Seconds = 5.0
    hang_s: Seconds = 120.0
    """A worker whose beat is older *and* whose processes use no CPU is hung."""
    stall_s: Seconds = 900.0
    """An agent that neither writes nor computes for so long is stopped."""
    attempt_timeout_s: Seconds = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry(Part):
    """How often an item is tried, and how soon again."""

    max_attempts: Annotated[int, Limits(strict=True, ge=1, le=1000)] = 3
    first_delay_s: Annotated[float, Limits(strict=True, ge=0, le=86_400)] = 10.0
    max_delay_s: Annotated[float, Limits(strict=True, ge=0, le=86_400)] = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Heal(Part):
    """What happens when a gate is red."""

    rounds: Annotated[int, Limits(strict=True, ge=0, le=100)] = 3
    """How often a red gate goes back to the same session within one attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk(Part):
    """Nothing is claimed while less than this is free."""

    floor_mb: Count = 512
    floor_inodes: Count = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake(Part):
    """How long a drop that cannot be read yet is left alone, and how big it may be."""

    grace_s: Annotated[float, Limits(strict=True, ge=0, le=3600)] = 2.0
    quiet_s: Annotated[float, Limits(strict=True, ge=0, le=3600)] = 2.0
    max_bytes: Annotated[int, Limits(strict=True, ge=1024, le=1 << 30)] = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(Part):
    """A command that must pass (exit 0), run by ``sh -c`` in the worktree."""

    name: Slug
    run: Text
    timeout_s: Seconds = 600.0
    required: Truth = True
    """False: its failure is reported and does not stop the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup(Part):
    """Prepares a worktree: run when it is new or when one of `inputs` changed."""

    run: Text
    inputs: tuple[Inside, ...] = ()
    timeout_s: Seconds = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge(Part):
    """How results get onto the target."""

    publish: Publish = Publish.PUSH
    gates: tuple[Slug, ...] = ()
    """Names of the project's gates to run again on the merged tree."""
    checkout: Checkout = Checkout.REFUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Part):
    """What may be spent. Nothing starts that would pass either."""

    usd: Dollars | None = None
    tokens: Tokens | None = None
    """Sent and received, what came from a cache included."""

    @property
    def limits(self) -> bool:
        """Whether it says anything."""
        return self.usd is not None or self.tokens is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets(Part):
    """What may be spent by all, and what is reserved for an attempt that nothing else bounds."""

    fleet: Budget = field(default_factory=Budget)
    """Of all that this root ever does."""
    day: Budget = field(default_factory=Budget)
    """Of a day, UTC."""
    convoys: Mapping[str, Budget] = field(default_factory=dict)
    """`convoy` of items -> all that they may cost together."""
    reserve_usd: Dollars = 1.0
    reserve_tokens: Tokens = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Project(Part):
    """A repository that agents work on."""

    name: str
    """The key below `projects`; never written inside."""
    path: Text
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
    briefing: str = ""
    """What every agent that works on it is told, below the item's own prompt."""
    domains: Mapping[str, str] = field(default_factory=dict)
    """The same for items with the label `domain`: its value -> what they are told."""
    budget: Budget = field(default_factory=Budget)
    """Of all that is ever done for it."""

    def gate(self, name: str) -> Gate:
        """Raises KeyError for a name that is not configured (`merge.gates` is checked when loading)."""
        return {gate.name: gate for gate in self.gates}[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern(Part):
    """A line of output that says how the run ended, whatever the exit code."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {
        **Part.__pydantic_config__,
        "alias_generator": lambda name: WRITTEN.get(name, name),
    }
    match: Regex
    outcome: OutcomeName
    retry_after: RetryRegex | None = None
    """Its first group holds the seconds to wait."""


class Output(StrEnum):
    """What a `command` writes to its standard output."""

    TEXT = "text"
    JSONL = "jsonl"  # one JSON object in each line; `fields` says where things are


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent(Part):
    """A tool that workers run. Which settings each adapter has: `SETTINGS`."""

    adapter: Literal["claude", "codex", "gemini", "opencode", "command"]
    binary: str = ""
    """The tool, by name or full path. Empty: the adapter's own name."""
    args: tuple[Text, ...] = ()
    """Further arguments for the tool, behind ours."""
    model: str = ""
    max_turns: Annotated[int, Limits(strict=True, ge=1, le=1_000_000)] | None = None
    max_budget_usd: Annotated[float, Limits(strict=True, gt=0, le=1_000_000)] | None = None
    """What one attempt may cost."""
    permission_mode: str = "acceptEdits"
    allowed_tools: tuple[Text, ...] = ("Bash", "Edit", "Write", "NotebookEdit", "WebFetch", "WebSearch")
    """What the tool may use without asking. Nobody answers: what is not allowed is denied."""
    as_root: Truth = False
    """Tell a tool that refuses to work for root without questions that it is in a sandbox."""
    config_from: File | None = None
    """A folder of the tool's configuration (login, MCP servers, skills, settings): each session begins with a copy."""
    argv: tuple[Text, ...] = ()
    resume_argv: tuple[Text, ...] = ()
    """Used instead of `argv` when a session goes on. Empty: `argv` again."""
    prompt: PromptBy = PromptBy.FILE
    output: Output = Output.TEXT
    fields: Mapping[str, str] = field(default_factory=dict)
    """For jsonl: what (session, text, cost_usd, tokens_in, tokens_out, turns) -> where, as dotted keys: ``result.cost``."""
    instructions: Instructions | None = None
    """None: text, and for a `command` comment."""
    env: Mapping[Variable, EnvValue] = field(default_factory=dict, repr=False)
    env_pass: tuple[VariableGlob, ...] = ()
    """Variables of the daemon to hand on; a trailing * is a prefix. Nothing else is inherited."""
    exit_codes: Mapping[str, OutcomeName] = field(default_factory=dict)
    """``{0: ok, 75: rate_limit, "*": crash}``; what is not listed: 0 is ok, the rest a crash."""
    patterns: tuple[Pattern, ...] = ()
    """First match wins, before exit codes."""
    stop: Ladder = ()
    """Empty: the adapter's own."""
    credential: str | None = None
    stall_s: Seconds | None = None
    """Instead of health.stall_s."""
    timeout_s: Seconds | None = None
    """Of one run of the tool, within the attempt's own limit."""
    max_output_mb: Annotated[int, Limits(strict=True, ge=1, le=100_000)] = 256

    @property
    def wording(self) -> Instructions:
        """How the rules are added to a prompt."""
        if self.instructions is not None:
            return self.instructions
        return Instructions.COMMENT if self.adapter == "command" else Instructions.TEXT


_ANY = frozenset(
    [
        "adapter",
        "model",
        "instructions",
        "env",
        "env_pass",
        "stop",
        "credential",
        "stall_s",
        "timeout_s",
        "max_output_mb",
    ]
)
_TOOL = _ANY | {"binary", "args", "config_from", "max_turns", "max_budget_usd"}
SETTINGS: Mapping[str, frozenset[str]] = {
    "claude": _TOOL | {"permission_mode", "allowed_tools", "as_root"},
    "codex": _TOOL,
    "gemini": _TOOL,
    "opencode": _TOOL,
    "command": _ANY | {"argv", "resume_argv", "prompt", "output", "fields", "exit_codes", "patterns"},
}
"""adapter -> the settings of an agent that mean something to it; any other is refused."""


LOGINS: Mapping[str, tuple[str, ...]] = {
    "claude": (".credentials.json",),
    "codex": ("auth.json",),
    "gemini": ("oauth_creds.json", "google_accounts.json"),
    "opencode": ("auth.json", "mcp-auth.json"),
}
"""adapter -> the files of its configuration folder that hold a login."""
OPENCODE_DATA = Path(".local/share/opencode")
"""Where OpenCode keeps its login, below HOME."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential(Part):
    """A secret that an agent needs. Only the agent's own process ever gets it."""

    variable: Variable
    """Its name in the agent's environment."""
    file: File | None = None
    """Where it is read from when the agent starts. None: from the daemon's own environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price(Part):
    """What a model's tokens cost, in USD for a million."""

    input: Dollars
    output: Dollars
    cached: Dollars | None = None
    """Input that was read from a cache; None: as `input`."""


def logins(adapter: str, folder: Path) -> tuple[Path, ...]:
    """The files of a tool's login that are there. `folder` is that of its configuration: what wins is in there."""
    places = [folder]
    if adapter == "opencode" and folder.parent.name == ".config":
        places.append(folder.parent.parent / OPENCODE_DATA)
    found = (place / name for place in places for name in LOGINS.get(adapter, ()))
    return tuple(path for path in found if path.is_file())


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Part):
    """The whole of config.yaml."""

    v: Version
    workers: Annotated[int, Limits(strict=True, ge=0, le=1000)] = 3
    durability: Durability = Durability.POWER
    sandbox: Sandbox = Sandbox.AUTO
    briefing: str = ""
    """What every agent is told, below the item's own prompt."""
    drain_s: Annotated[float, Limits(strict=True, ge=0, le=604_800)] = 600.0
    """How long running attempts may go on after the first TERM."""
    projects: Mapping[Slug, Project] = field(default_factory=dict)
    """`rigs` is accepted for `projects`."""
    agents: Mapping[Slug, Agent] = field(default_factory=dict)
    credentials: Mapping[Slug, Credential] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    """For tools that report tokens and no cost: a glob for the model's name -> its price. The first that matches holds."""
    budgets: Budgets = field(default_factory=Budgets)
    health: Health = field(default_factory=Health)
    retry: Retry = field(default_factory=Retry)
    heal: Heal = field(default_factory=Heal)
    disk: Disk = field(default_factory=Disk)
    intake: Intake = field(default_factory=Intake)
    origins: Mapping[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Dotted setting -> where its value comes from; only what is not a default."""

    @property
    def secrets(self) -> tuple[Path, ...]:
        """The files that hold credentials, as real paths: no gate or setup may read them, and no agent but its own."""
        files = [c.file for c in self.credentials.values() if c.file]
        for agent in self.agents.values():
            if agent.config_from is not None:
                files += map(str, logins(agent.adapter, Path(expanded(agent.config_from))))
        return tuple(dict.fromkeys(Path(os.path.realpath(expanded(f))) for f in files))

    @property
    def budgeted(self) -> bool:
        """Whether there is any budget but those of single items."""
        known = self.budgets
        shared = (
            known.fleet,
            known.day,
            *known.convoys.values(),
            *(p.budget for p in self.projects.values()),
        )
        return any(budget.limits for budget in shared)

    def credential_of(self, agent: str) -> Credential | None:
        """The one that an agent names; None: it names none, or is not there."""
        known = self.agents.get(agent)
        return self.credentials.get(known.credential) if known and known.credential else None

    @property
    def default_project(self) -> str | None:
        """The project of items that name none: the only one, or None."""
        return next(iter(self.projects)) if len(self.projects) == 1 else None

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """For editors: what config.yaml may hold."""
        from pydantic import TypeAdapter

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

"""The real agents, as tests run them: each in folders of its own, with the model server as its model and its only way out."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.agents.server import ModelServer
from tests.hubs import git
from tests.support import running

Json = dict[str, Any]

VARIABLES: Mapping[str, str] = {
    "claude": "HARNESS_AGENT_CLAUDE",
    "claude-old": "HARNESS_AGENT_CLAUDE_OLD",
    "codex": "HARNESS_AGENT_CODEX",
    "gemini": "HARNESS_AGENT_GEMINI",
    "opencode": "HARNESS_AGENT_OPENCODE",
}
"""Which variable names each agent's binary; `scripts/test-agents` sets them."""
BINARIES: Mapping[str, str] = {name: os.environ.get(variable, "") for name, variable in VARIABLES.items()}
"""Read at once: the tests' own environment has nothing of ours."""
DEADLINE_S = 100.0
"""For one run, on a machine that is busy with other things."""


def binary(name: str) -> str:
    """The agent's binary; without one the test is skipped."""
    if not BINARIES[name]:
        pytest.skip(f"{VARIABLES[name]} names no {name}: scripts/test-agents installs it and sets that")
    return BINARIES[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is left of one run."""

    exit_code: int
    """Negative: the signal that ended it."""
    stdout: str
    stderr: str

    @property
    def events(self) -> list[Json]:
        """The lines of stdout that are JSON."""
        return [json.loads(line) for line in self.stdout.splitlines() if line.startswith("{")]

    def event(self, kind: str) -> Json:
        """The last event of this type."""
        return next(e for e in reversed(self.events) if e.get("type") == kind)

    def __str__(self) -> str:
        return f"exit {self.exit_code}\n{self.stdout[-4000:]}\n{self.stderr[-4000:]}"


Command = Callable[["Place", str, str, str | None], tuple[Sequence[str], Mapping[str, str]]]
"""(place, base URL, prompt, session to go on with) -> arguments, and what the environment has besides."""


class Place:
    """Folders for one agent: a worktree, a home, temporary files. What it does in one run is there in the next."""

    def __init__(self, name: str, server: ModelServer, base: Path) -> None:
        """Skips the test when there is no such agent."""
        self.name = name
        self.server = server
        self.binary = binary(name)
        self.worktree, self.home, self.tmp = (base / folder for folder in ("wt", "home", "t"))
        for folder in (self.worktree, self.home, self.tmp):
            folder.mkdir(parents=True)
        git(self.worktree, "init", "-q", "-b", "main")
        git(self.worktree, "commit", "-q", "--allow-empty", "-m", "first")
        self._runs = 0

    def run(
        self,
        scenario: str,
        prompt: str = "Create hello.txt and commit it",
        *also: str,
        key: str = "",
        resume: str | None = None,
        **more: str,
    ) -> Run:
        """One run to its end. `also`: further arguments; `more`: further variables, an empty one is taken away."""
        arguments, own = COMMANDS[self.name](self, self.server.base(scenario, key), prompt, resume)
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "GIT_CONFIG_NOSYSTEM": "1",
            **self.server.proxies(),
            **own,
            **more,
        }
        env = {name: value for name, value in env.items() if value}
        self._runs += 1
        out, err = (self.home.parent / f"{kind}.{self._runs}" for kind in ("stdout", "stderr"))
        with (
            out.open("wb") as stdout,
            err.open("wb") as stderr,
            running(
                [self.binary, *arguments, *also],
                cwd=self.worktree,
                env=env,
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
            ) as process,
        ):
            try:
                code = process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                said = Run(
                    exit_code=0,
                    stdout=out.read_text("utf-8", "replace"),
                    stderr=err.read_text("utf-8", "replace"),
                )
                raise AssertionError(f"{self.name} still runs after {DEADLINE_S} s: {said}") from None
        return Run(
            exit_code=code, stdout=out.read_text("utf-8", "replace"), stderr=err.read_text("utf-8", "replace")
        )

    def commits(self) -> list[str]:
        """Subjects, newest first, without the one that was there before."""
        return git(self.worktree, "log", "--format=%s").splitlines()[:-1]

    def session(self, run: Run) -> str:
        """The conversation's id, as the agent says it."""
        events = run.events
        key = {"codex": "thread_id", "opencode": "sessionID"}.get(self.name, "session_id")
        return str(next(e[key] for e in events if key in e))

    def text(self, run: Run) -> str:
        """All that the model said, as the agent tells it."""
        match self.name:
            case "claude" | "claude-old":
                return str(run.event("result").get("result"))
            case "codex":
                items = [e["item"] for e in run.events if e.get("type") == "item.completed"]
                return "".join(i["text"] for i in items if i.get("type") == "agent_message")
            case "gemini":
                return "".join(e["content"] for e in run.events if e.get("role") == "assistant")
            case _:
                return "".join(e["part"]["text"] for e in run.events if e.get("type") == "text")


# ---- how each of them is started -----------------------------------------------------------------------------------------


def _claude(
    place: Place, url: str, prompt: str, resume: str | None
) -> tuple[Sequence[str], Mapping[str, str]]:
    session = ("--resume", resume) if resume else ("--session-id", str(uuid.uuid4()))
    env = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "dummy",
        "CLAUDE_CONFIG_DIR": str(place.home / "config"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "2",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
    }
    if os.getuid() == 0:
        env["IS_SANDBOX"] = "1"
    arguments = (
        "-p",
        prompt,
        "--output-format",
        "stream-json",
        "--verbose",
        "--dangerously-skip-permissions",
    )
    return (*arguments, "--model", "claude-sonnet-4-5", *session), env


_CODEX = """\
model = "mock-model"
model_provider = "test"
check_for_update_on_startup = false
[model_providers.test]
name = "test"
base_url = "{url}/v1"
env_key = "TEST_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 3
stream_idle_timeout_ms = 60000
[analytics]
enabled = false
[otel]
exporter = "none"
"""


def _codex(
    place: Place, url: str, prompt: str, resume: str | None
) -> tuple[Sequence[str], Mapping[str, str]]:
    home = place.home / "codex"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(_CODEX.format(url=url))
    session = ("resume", resume) if resume else ()
    arguments = ("exec", *session, "--json", "--dangerously-bypass-approvals-and-sandbox", prompt)
    return arguments, {"CODEX_HOME": str(home), "TEST_KEY": "dummy"}


def _gemini(
    place: Place, url: str, prompt: str, resume: str | None
) -> tuple[Sequence[str], Mapping[str, str]]:
    home = place.home / ".gemini"
    home.mkdir(exist_ok=True)
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
        "general": {"enableAutoUpdate": False},
        "telemetry": {"enabled": False},
    }
    (home / "settings.json").write_text(json.dumps(settings))
    session = ("--resume", resume) if resume else ("--session-id", str(uuid.uuid4()))
    arguments = ("-p", prompt, "-o", "stream-json", "--skip-trust", "--yolo", *session)
    return arguments, {"GEMINI_API_KEY": "dummy", "GOOGLE_GEMINI_BASE_URL": url}


def _opencode(
    place: Place, url: str, prompt: str, resume: str | None
) -> tuple[Sequence[str], Mapping[str, str]]:
    config = place.home / ".config/opencode"
    config.mkdir(parents=True, exist_ok=True)
    model = {
        "name": "test",
        "cost": {"input": 3, "output": 15},
        "limit": {"context": 200_000, "output": 8000},
    }
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "test",
        "options": {"baseURL": f"{url}/v1", "apiKey": "dummy"},
        "models": {"mock-model": model},
    }
    settings = {
        "autoupdate": False,
        "share": "disabled",
        "model": "test/mock-model",
        "small_model": "test/mock-model",
        "permission": "allow",
        "provider": {"test": provider},
    }
    (config / "opencode.json").write_text(json.dumps(settings))
    session = ("--session", resume) if resume else ()
    arguments = ("run", "--format", "json", *session, prompt)
    return arguments, {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}


COMMANDS: Mapping[str, Command] = {
    "claude": _claude,
    "claude-old": _claude,
    "codex": _codex,
    "gemini": _gemini,
    "opencode": _opencode,
}
